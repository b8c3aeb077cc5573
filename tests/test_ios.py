"""An iPhone on a cable, driven through a stand-in for Xcode's tools: what coremltools sends it arrives, each trouble
has its sentence, and no stand-in's figure is ever a device's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("coremltools")

import devicectl_stand_in as stand_in
import unproven
import written_reports as written
from conftest import TESTS, TINY, TINY_MASK
from vitexport import ExportRequest, Size, registry
from vitexport.bench import SOFTWARE_ADAPTER
from vitexport.bundle import read_golden
from vitexport.commands import COMMANDS
from vitexport.contract import Attachment, Report, Result
from vitexport.devices import attached
from vitexport.errors import (
    BadRequest,
    Interrupted,
    MissingToolchain,
    RuntimeUnavailable,
    VitexportError,
    WorldFailed,
)
from vitexport.manifest import decode, encode
from vitexport.proof import blank_result
from vitexport_targets.coreml import inputs, names
from vitexport_targets.coreml.evaluator import Evaluator
from vitexport_targets.coreml.ios import devicectl, measure, runner
from vitexport_targets.coreml.ios.devicectl import Listed, described
from vitexport_targets.coreml.ios.loaded import Loaded
from vitexport_targets.coreml.ios.plain import write_plain
from vitexport_targets.coreml.package import read

TEAM = "A1B2C3D4E5"

#: What copies files needs no packages, and starts faster without; the app computes.
_SCRIPT = """#!/bin/sh
case "$*" in *"process launch"*) packages= ;; *) packages=-S ;; esac
exec "{python}" $packages "{script}" {name} "$@"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export to Core ML that takes a picture and answers a label, with a report that knows it, and a page that shows
    no device yet."""
    home = tmp_path_factory.mktemp("made")
    request = ExportRequest(model=TINY, targets=("coreml",), precisions=("fp16",))
    (bundle,) = unproven.written(home / "coreml", request)
    report = written.report(blank_result(registry.target("coreml"), bundle, "fp16", "evaluator"))
    (home / "report.json").write_bytes(encode(report))
    (home / "report.html").write_text("as it was")
    return home


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in's folder. What coremltools' wheel for Linux lacks is stood in for as well: Core ML's compiler, and
    the runner's Xcode project, which the stand-in for ``xcodebuild`` does not read."""
    from coremltools.models import utils
    from coremltools.models.ml_program.experimental import remote_device

    tools = tmp_path / "tools"
    tools.mkdir()
    for path in (tools / "xcrun", tools / "xcodebuild"):
        path.write_text(_SCRIPT.format(python=sys.executable, script=stand_in.__file__, name=path.name))
        path.chmod(0o755)
    (tmp_path / "modelrunner" / "ModelRunner.xcworkspace").mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("DEVICECTL_ROOT", str(tmp_path))
    monkeypatch.setattr(
        utils, "compile_model", lambda model, destination_path: shutil.copytree(model, destination_path)
    )
    monkeypatch.setattr(remote_device._ModelRunnerAppBuilder, "_get_project_path", lambda: tmp_path / "modelrunner")
    monkeypatch.setattr(remote_device._DeviceCtl, "_validation_done", False)
    monkeypatch.setattr(runner, "_LOOKING_S", 0.02)  # no cable is that short
    return tmp_path


@pytest.fixture
def one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one set of compute units: each prediction is sent by file, which takes a second."""
    monkeypatch.setattr(measure, "UNITS", ("cpu_and_ne",))


def run(made: Path, serial: str | None = None, team: str | None = TEAM) -> tuple[Result, ...]:
    return attached.measure(made / "coreml", Attachment("ios", serial, team=team)).results


def calls(phone: Path) -> list[list[str]]:
    return [json.loads(line) for line in (phone / "calls").read_text().splitlines()]


# ----------------------------------------------------------------------------------------------------- what is filed


def test_a_package_is_timed_and_proven_there_and_filed_as_the_stand_ins_it_is(
    made: Path, phone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert COMMANDS["bench"]([str(made), "--device", "ios", "--team", TEAM]) == 0
    said = capsys.readouterr().out
    assert "iPhone 16 (stand-in)" in said
    assert f"Filed in {made / 'report.json'}." in said
    report = decode((made / "report.json").read_bytes(), Report)
    own, *added = report.results
    assert own.provider == "evaluator"
    assert [(r.precision, r.provider, r.verdict) for r in added] == [
        ("fp16", units, "passed") for units in ("cpu_only", "cpu_and_gpu", "cpu_and_ne", "all")
    ]
    cpu, *_, fastest = added
    # Times are the device's own, and come back in our units.
    assert (cpu.latency.load_ms, cpu.latency.cold_ms, cpu.latency.median_ms) == (41.5, 6000, 6000)
    assert cpu.latency.facts == {
        "os": "iOS 18.2", "build": "22C55", "product": "iPhone17,3",
        "sent_as": "arrays: the picture as what the program gets, no label",
    }  # fmt: skip
    assert "each sent by file, so the device may not run at its full clock" in cpu.latency.warning
    assert cpu.placement is not None
    assert set(cpu.placement.nodes) == {"CPU"}
    assert cpu.placement.fallback == ()
    assert fastest.placement is not None
    assert fastest.placement.nodes["CPU"] == len(fastest.placement.fallback) > 0
    assert fastest.placement.nodes["Neural Engine"] > 0
    assert all(name.startswith("cast (") for name in fastest.placement.fallback)
    assert "no device’s figure" in (made / "report.html").read_text()


@pytest.mark.usefixtures("one_way")
def test_nothing_that_a_stand_in_ran_is_a_devices_and_the_app_is_taken_away_again(made: Path, phone: Path) -> None:
    (result,) = run(made)
    assert (result.verdict, result.device_verdict) == ("passed", "not run")
    assert result.device_reason == "needs the hardware itself: software stood in for it"
    assert SOFTWARE_ADAPTER in result.latency.device
    assert result.parity.runtime.endswith("on iPhone 16 (stand-in)")
    said = calls(phone)
    (built,) = (words for words in said if words[0] == "xcodebuild")
    # An App ID belongs to one team for good, so that coremltools' own can be signed by nobody else.
    assert "PRODUCT_BUNDLE_IDENTIFIER=com.vitexport.modelrunner.a1b2c3d4e5" in built
    assert "-allowProvisioningUpdates" in built
    assert said[-1][:5] == ["xcrun", "devicectl", "device", "uninstall", "app"]
    assert list((phone / "containers").iterdir()) == []
    assert os.environ["PATH"] == f"{phone / 'tools'}:/usr/bin:/bin"


@pytest.mark.usefixtures("one_way")
def test_another_size_of_a_ladder_is_another_function(phone: Path, tmp_path: Path) -> None:
    sizes = (Size(32, 32), Size(48, 48))
    request = ExportRequest(
        model=f"{TESTS / 'models.py'}:any_size", targets=("coreml",), sizes=sizes, precisions=("fp16",),
        coreml_target="ios18",
    )  # fmt: skip
    unproven.written(tmp_path / "ladder", request)
    results = attached.measure(tmp_path / "ladder", Attachment("ios", team=TEAM)).results
    assert [(str(r.size), r.verdict) for r in results] == [("32x32", "passed"), ("48x48", "passed")]


# ------------------------------------------------------------------------------------------------ what does not go well


def test_a_package_that_this_macs_core_ml_does_not_compile_is_not_run_there(
    made: Path, phone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of iOS 18 on an older macOS, say."""
    from coremltools.models import utils

    def refusing(*_: object, **__: object) -> None:
        raise RuntimeError("Error compiling model: unknown opset.\nMore.")

    monkeypatch.setattr(utils, "compile_model", refusing)
    reason = "Core ML does not compile model_fp16.mlpackage on this Mac: Error compiling model: unknown opset"
    assert [(r.verdict, r.parity.reason) for r in run(made)] == [("not run", reason)] * 4


@pytest.mark.usefixtures("one_way")
def test_what_core_ml_refuses_there_says_why(made: Path, phone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICECTL_TROUBLE", "refused")
    (found,) = run(made)
    assert (found.verdict, found.latency.verdict) == ("not run", "not run")
    why = "Failed to build the model execution plan using a model architecture file"
    assert found.parity.reason == found.latency.reason == why
    assert list((phone / "containers").iterdir()) == []


@pytest.mark.usefixtures("one_way")
def test_a_unit_that_computes_wrongly_fails_and_its_times_count_for_nothing(
    made: Path, phone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVICECTL_TROUBLE", "wrong")
    (found,) = run(made)
    assert (found.verdict, found.latency.reason) == ("failed", "parity failed")


@pytest.mark.usefixtures("one_way")
def test_an_old_system_tells_no_plan_and_an_app_that_does_not_listen_yet_is_asked_again(
    made: Path, phone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVICECTL_TROUBLE", "old")
    monkeypatch.setattr(runner, "_GREETING_S", 2.0)
    monkeypatch.setattr(runner, "_GREETINGS", 30)
    (found,) = run(made)
    assert (found.verdict, found.placement) == ("passed", None)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("crash", "the model runner ended on the device: App terminated due to signal 9"),
        ("slow", "no answer came from the device (ERROR: No file at message.json)"),
        ("hanging", "no answer came from the device (ERROR: The operation timed out)"),
    ],
)
def test_what_ends_the_app_or_holds_it_up_costs_its_own_cell(
    made: Path, phone: Path, monkeypatch: pytest.MonkeyPatch, trouble: str, reason: str
) -> None:
    """It is launched anew for the next."""
    monkeypatch.setenv("DEVICECTL_TROUBLE", trouble)
    monkeypatch.setattr(measure, "UNITS", ("cpu_and_ne", "cpu_only"))
    if trouble != "crash":
        monkeypatch.setattr(runner, "LONGEST_S", 3.0)
        monkeypatch.setattr(devicectl, "LONGEST_COPY_S", 3.0)
    launched, launches = runner._launched, []

    def launch(*arguments: Any) -> Any:
        launches.append(arguments)
        if len(launches) > 1:  # what is to be lost is lost
            monkeypatch.setattr(runner, "LONGEST_S", 300.0)
        return launched(*arguments)

    monkeypatch.setattr(runner, "_launched", launch)
    lost, kept = run(made)
    assert (lost.verdict, lost.parity.reason) == ("not run", reason)
    assert kept.verdict == "passed"
    assert len(launches) == 2


@pytest.mark.usefixtures("one_way")
def test_rows_that_are_padded_are_read_by_their_strides(
    made: Path, phone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVICECTL_TROUBLE", "padded")
    assert [result.verdict for result in run(made)] == ["passed"]


@pytest.mark.usefixtures("one_way")
def test_an_app_that_is_not_trusted_stays_so_that_it_can_be(
    made: Path, phone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its developer's entry in Settings is there as long as it is."""
    monkeypatch.setenv("DEVICECTL_TROUBLE", "untrusted")
    with pytest.raises(WorldFailed) as said:
        run(made)
    assert "its profile is not trusted). Unlock the device; for a free account trust its developer" in str(said.value)
    assert [path.name for path in (phone / "containers").iterdir()] == ["com.vitexport.modelrunner.a1b2c3d4e5"]


def test_whoever_interrupts_a_prediction_leaves_no_app_and_no_file(
    made: Path, phone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the midst of it, as the command line takes it."""
    monkeypatch.setattr(tempfile, "tempdir", str(phone / "temporary"))
    (phone / "temporary").mkdir()

    def interrupted(*_: Any) -> None:
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(measure.PhoneSession, "run", interrupted)
    with pytest.raises(Interrupted):
        run(made)
    assert list((phone / "containers").iterdir()) == []
    assert list((phone / "temporary").iterdir()) == []


@pytest.mark.usefixtures("one_way")
@pytest.mark.parametrize(
    ("trouble", "kind", "says"),
    [
        ("none", MissingToolchain, "No iPhone or iPad is attached. Connect it by cable, unlock it, tap Trust"),
        ("unpaired", MissingToolchain, "is not paired with this Mac. Unlock it, tap Trust, and run this again."),
        ("no developer mode", MissingToolchain, "does not have Developer Mode on. Switch it on in Settings > Privacy"),
        ("away", MissingToolchain, "cannot be reached (ERROR: The device is not connected). Connect it by cable, un"),
        ("deaf", MissingToolchain, "cannot be reached (ERROR: The device is not connected). Connect it by cable, un"),
        ("iOS 16", MissingToolchain, "has iOS 16.7.2, and coremltools' model runner needs 17. Update it, or take ano"),
        ("two", BadRequest, f"2 devices are attached ({stand_in.IDENTIFIER} Somebody's phone, {stand_in.OTHER} Some"),
        ("nameless", BadRequest, "does not say what it is (no marketingName in devicectl's list)"),
        ("broken", MissingToolchain, "devicectl lists no devices (ERROR: CoreDeviceService cannot be launched)"),
        ("simulators alone", MissingToolchain, "No iPhone or iPad is attached."),
        ("no hardware", MissingToolchain, "devicectl 477.39 lists devices in a form that coremltools does not read"),
        (
            "unsigned",
            MissingToolchain,
            "model runner (error: No profiles for 'com.vitexport.modelrunner' were found). Xcode",
        ),
        ("locked", WorldFailed, "did not install the model runner on "),
        ("unplugged", WorldFailed, "does not run on "),
    ],
)
def test_each_trouble_has_its_sentence_and_nothing_is_filed(
    made: Path,
    phone: Path,
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
    kind: type[VitexportError],
    says: str,
) -> None:
    before = (made / "report.json").read_bytes()
    monkeypatch.setenv("DEVICECTL_TROUBLE", trouble)
    with pytest.raises(kind) as said:
        run(made)
    assert says in str(said.value)
    assert (made / "report.json").read_bytes() == before


@pytest.mark.usefixtures("one_way")
@pytest.mark.parametrize("trouble", ["asleep", "one of two here", "simulators"])
def test_what_is_not_quite_ready_is_used_all_the_same(
    made: Path, phone: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """One whose tunnel comes up when it is asked something; one beside another that was paired long ago, or a
    simulator."""
    monkeypatch.setenv("DEVICECTL_TROUBLE", trouble)
    assert devicectl.attached(None).identifier == stand_in.IDENTIFIER


def test_one_of_two_is_named_and_an_unknown_one_is_said(
    made: Path, phone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVICECTL_TROUBLE", "two")
    assert devicectl.attached(stand_in.OTHER).kind == "iPad"
    assert devicectl.attached(f"00008140-{stand_in.OTHER[:8]}").kind == "iPad"
    with pytest.raises(BadRequest, match=r"No device has the serial 'nobody'. Attached: AAAAAAAA-"):
        run(made, "nobody")


def test_without_xcode_its_absence_is_said_with_the_other_way(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        MissingToolchain, match=r"needs a Mac with Xcode 16 or later \('xcrun' is not here\).*report DIR --add"
    ):
        run(made)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--device", "ios"], "--team is missing: the ten characters of the Apple developer team"),
        (["--device", "ios", "--team", "$(reboot)"], "--team '$(reboot)' is no team: it has ten characters"),
        (["--device", "ios", "--team", TEAM, "--threads", "4"], "--threads means nothing to --device ios"),
        (["--device", "ios", "--team", TEAM, "--benchmark-model", "x"], "means nothing without --device adb."),
        (["--team", TEAM], "--team means nothing without --device ios."),
    ],
)
def test_words_that_mean_nothing_together_are_said(made: Path, phone: Path, words: list[str], says: str) -> None:
    with pytest.raises(BadRequest) as said:
        COMMANDS["bench"]([str(made), *words])
    assert says in str(said.value)


# ------------------------------------------------------------------------------------------- what is sent, and to whom


@pytest.mark.parametrize("name", [TINY, TINY_MASK], ids=["classes", "mask"])
@pytest.mark.parametrize("image_input", [True, False])
def test_a_plain_package_is_the_same_program_and_takes_and_answers_arrays_alone(
    tmp_path: Path, name: str, image_input: bool
) -> None:
    request = ExportRequest(model=name, targets=("coreml",), precisions=("fp16",), image_input=image_input)
    (bundle,) = unproven.written(tmp_path / "made", request)
    package = read(names.package(bundle, "fp16"))
    plain = read(write_plain(package.path, tmp_path / "plain.mlpackage"))
    function = package.default_function
    features = plain.interfaces[function]
    assert {f.kind for f in (*features.inputs, *features.outputs)} == {"multi-array"}
    assert features.predicted_feature == features.predicted_probabilities == ""
    given = inputs.feed(package, function, read_golden(bundle)[0].pixel_values, bundle.rung.preprocessing)
    answer, ours = (Evaluator(each, function, arithmetic="fp16").run(given) for each in (package, plain))
    for output in bundle.rung.outputs:
        np.testing.assert_array_equal(ours[output.name], answer[output.name])


def test_what_is_sent_is_in_the_order_that_its_strides_tell(tmp_path: Path) -> None:
    """coremltools writes an array's bytes in C order, with the strides that it had before."""
    sent: list[Any] = []

    class Listening:
        folder = tmp_path

        def ask(self, method: str, params: dict[str, Any], resource: Path) -> tuple[dict[str, Any], bytes]:
            sent.append(stand_in.array(params["inputs"]["image"], resource.read_bytes()))
            return {"duration": 1, "outputs": {}}, b""

    picture = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    Loaded(Listening(), "model", "ALL", 0.0).predict({"image": np.asfortranarray(picture)})
    np.testing.assert_array_equal(sent[0], picture)


@pytest.mark.parametrize(("strides", "size"), [([5, 1], 16), ([9, 1], 40), ([-5, 1], 40), ([5], 40)], ids=str)
def test_an_answer_that_is_not_where_it_says_is_not_read(strides: list[int], size: int, tmp_path: Path) -> None:
    class Answering:
        folder = tmp_path

        def ask(self, *_: object) -> tuple[dict[str, Any], bytes]:
            told = {"dataType": "Float32", "shape": [2, 5], "strides": strides, "storage": {"offset": 0, "size": size}}
            return {"duration": 1, "outputs": {"logits": told}}, bytes(size)

    with pytest.raises(RuntimeUnavailable, match="the device's answer is not readable"):
        Loaded(Answering(), "model", "ALL", 0.0).predict({})


def test_a_load_without_its_time_is_not_readable() -> None:
    class Answering:
        def ask(self, *_: object) -> tuple[dict[str, Any], bytes]:
            return {}, b""

    with pytest.raises(RuntimeUnavailable, match="the device's answer is not readable: 'duration'"):
        Loaded.of(Answering(), Path("model.mlmodelc"), "all", None)


def test_a_device_is_called_by_its_shops_name_and_stands_in_for_none_on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(**changed: Any) -> Any:
        return described(Listed.of(stand_in.device(**changed)))

    assert told().software  # on Linux, whatever it says
    monkeypatch.setattr(devicectl.sys, "platform", "darwin")
    assert (told().name, told().software, told().facts["os"]) == ("iPhone 16", False, "iOS 18.2")
    assert told(reality="").software
    assert told(kind="iPad").facts["os"] == "iPadOS 18.2"
