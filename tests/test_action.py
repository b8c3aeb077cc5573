"""The GitHub Action for users: its own steps, run as a runner runs them, with a stand-in for ``gh`` that writes down
what it is asked."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import TESTS, TINY
from vitexport import ExportRequest, pipeline

ROOT = TESTS.parent
ACTION = yaml.safe_load((ROOT / ".github" / "actions" / "vitexport" / "action.yml").read_text())
STEPS: dict[str, dict[str, Any]] = {step["name"]: step for step in ACTION["runs"]["steps"]}

#: Answers as GitHub's client does, and keeps each call with the body that it was given.
GH = """#!/usr/bin/env python3
import json, os, sys
body = next((open(a.removeprefix("body=@")).read() for a in sys.argv if a.startswith("body=@")), None)
with open(os.environ["GH_CALLS"], "a") as calls:
    print(json.dumps({"words": sys.argv[1:], "body": body}), file=calls)
if os.environ.get("GH_REFUSES", "") in ("all", "writing" if body else "all"):
    sys.exit("gh: Resource not accessible by integration (HTTP 403)")
if body is None:
    print(os.environ.get("GH_FOUND", ""))
"""


@dataclass
class Job:
    """A runner's folder, files and environment for one run of the action."""

    folder: Path
    inputs: dict[str, str]
    github: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bin_ = self.folder / "bin"
        bin_.mkdir()
        (bin_ / "gh").write_text(GH)
        (bin_ / "vitexport").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vitexport "$@"\n')
        for name in ("gh", "vitexport"):
            (bin_ / name).chmod(0o755)
        (self.folder / "summary").touch()
        defaults = {name: str(given.get("default", "")) for name, given in ACTION["inputs"].items()}
        self.inputs = {**defaults, "token": "t0ken", **self.inputs}
        self.github = {"action_path": str(self.folder), "repository": "me/net", "event_name": "pull_request",
                       "event.pull_request.number": "7", "server_url": "https://github.com", "run_id": "99",
                       **self.github}  # fmt: skip

    def value(self, expression: str) -> str:
        """Of ``${{ expression }}``."""
        kind, _, name = expression.strip().partition(".")
        if kind == "steps":
            step, _, output = name.partition(".outputs.")
            return self.outputs.get(step, {}).get(output, "")
        return {"inputs": self.inputs, "github": self.github}[kind][name]

    def wanted(self, step: dict[str, Any]) -> bool:
        tests = [test.split(" == ") for test in step.get("if", "'' == ''").split(" && ")]
        return all((left if left == "''" else repr(self.value(left))) == right for left, right in tests)

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        step = STEPS[name]
        assert self.wanted(step)
        said = self.folder / "output"
        said.write_text("")
        script = self.folder / "step.sh"
        script.write_text(step["run"])
        given = {k: re.sub(r"\$\{\{(.*?)\}\}", lambda m: self.value(m[1]), str(v)) for k, v in step["env"].items()}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self.folder,
            env={
                **os.environ,
                **given,
                **self.environment,
                "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "RUNNER_TEMP": str(self.folder),
                "GITHUB_OUTPUT": str(said),
                "GITHUB_STEP_SUMMARY": str(self.folder / "summary"),
                "GITHUB_ENV": str(self.folder / "environment"),
                "GH_CALLS": str(self.folder / "calls"),
                "HF_HUB_OFFLINE": "1",
            },
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        lines = (line.partition("=") for line in said.read_text().splitlines())
        self.outputs[step.get("id", name)] = {key: value for key, _, value in lines}
        return done

    @property
    def calls(self) -> list[dict[str, Any]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def summary(self) -> str:
        return (self.folder / "summary").read_text()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the export step leaves behind."""
    out = tmp_path_factory.mktemp("exported") / "out"
    pipeline.export(ExportRequest(model=TINY, targets=("onnx",), precisions=("fp32",), out=str(out)))
    return out


def exported_job(folder: Path, exported: Path, inputs: dict[str, str] | None = None, **more: Any) -> Job:
    """As the export step leaves it."""
    job = Job(folder, {"model": "m", **(inputs or {})}, **more)
    shutil.copytree(exported, folder / "made")
    job.outputs["export"] = {"code": "0", "home": "made", "report": "made/report.json"}
    return job


def smaller(report: Path, into: Path) -> None:
    """The same report, when files were half as large."""
    found = json.loads(report.read_text())
    for file in (file for result in found["results"] for file in result["files"]):
        file["bytes"] //= 2
    into.write_text(json.dumps(found))


def test_it_is_an_action_that_github_takes() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert set(ACTION) == {"name", "description", "inputs", "outputs", "runs"}
    for given in ACTION["inputs"].values():
        assert given["description"]
        assert ("default" in given) != given.get("required", False)
    for step in STEPS.values():
        if "uses" in step:
            assert step["uses"] == "actions/upload-artifact@v4"
            continue
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "an input's text must never be a script's"
        assert subprocess.run(["bash", "-n"], input=step["run"], text=True, check=False).returncode == 0
    ids = {step["id"] for step in STEPS.values() if "id" in step}
    spelt = re.findall(r"\$\{\{ (.*?) \}\}", json.dumps(ACTION))
    assert {m[1] for e in spelt if (m := re.match(r"steps\.(\w+)\.outputs\.", e))} <= ids
    assert {m[1] for e in spelt if (m := re.match(r"inputs\.(\w+)$", e))} == set(ACTION["inputs"]) - {
        "install",
        "comment",
        "artifact",
    }


def test_without_a_baseline_the_table_is_in_the_summary_and_in_a_new_comment(tmp_path: Path, exported: Path) -> None:
    job = exported_job(tmp_path, exported)
    assert job.run("Compare and write the table").returncode == 0
    mark, _, rest = job.summary.partition("\n")
    assert re.fullmatch(r"<!-- vitexport: m-exports-model-\d+ -->", mark)
    assert rest.startswith("### models.py:tiny: ✅ passed")
    assert "Beside the last export" not in job.summary
    assert job.run("Comment").returncode == 0
    looked, wrote = job.calls
    assert looked["words"][:3] == ["api", "--paginate", "repos/me/net/issues/7/comments"]
    assert looked["words"][4] == f'.[] | select(.body | startswith("{mark}")) | .id'
    assert wrote["words"][:4] == ["api", "--method", "POST", "repos/me/net/issues/7/comments"]
    assert wrote["body"] == job.summary
    assert job.run("Judge").returncode == 0
    assert job.outputs["judge"] == {"verdict": "passed"}


def test_each_use_has_a_comment_of_its_own_whatever_it_is_called(tmp_path: Path, exported: Path) -> None:
    marks = []
    for number, inputs in enumerate(
        ({"id": "tiny"}, {"model": "n"}, {"out": "there"}, {"id": 'a"--> $(ls)'}, {"id": "ä"})
    ):
        (folder := tmp_path / str(number)).mkdir()
        job = exported_job(folder, exported, inputs)
        assert job.run("Compare and write the table").returncode == 0
        marks.append(job.outputs["table"]["mark"])
        assert marks[-1] == f"<!-- vitexport: {job.outputs['table']['id']} -->"
        assert re.fullmatch(r"[A-Za-z0-9._]*(-[A-Za-z0-9._]*)*", job.outputs["table"]["id"])
        assert "--" not in job.outputs["table"]["id"]
    assert marks[0] == "<!-- vitexport: tiny -->"
    assert len(set(marks)) == len(marks)


def test_a_comment_is_cut_below_what_github_takes_and_says_where_the_whole_is(tmp_path: Path, exported: Path) -> None:
    job = exported_job(tmp_path, exported)
    assert job.run("Compare and write the table").returncode == 0
    job.outputs["keep"] = {"artifact-url": "https://github.com/me/net/artifacts/1"}
    table = tmp_path / job.outputs["table"]["table"]
    fold = "<details>\n<summary>Many</summary>\n\n" + "| ⬜ | a row |\n" * 8000 + "\n</details>\n"
    table.write_text(table.read_text() + fold)
    assert job.run("Comment").returncode == 0
    body = job.calls[1]["body"]
    assert 60_000 < len(body) < 65_536
    assert body.startswith(f"{job.outputs['table']['mark']}\n### models.py:tiny")
    assert body.count("<details>") == body.count("</details>")
    assert (
        "| ⬜ | a row |\n\n</details>\n\nCut here: the whole is in [the summary of the run](https://github.com/me/net"
        in body
    )
    assert body.endswith("/actions/runs/99).\n\n[report.html](https://github.com/me/net/artifacts/1) of this run.\n")


def test_the_report_is_kept_as_an_artifact_where_that_is_wanted(tmp_path: Path) -> None:
    job, step = Job(tmp_path, {}), STEPS["Keep the report"]
    assert job.wanted(step)
    assert step["continue-on-error"] is True
    job.outputs = {"export": {"home": "made", "report": "made/report.json"}, "table": {"id": "tiny"}}
    given = {k: re.sub(r"\$\{\{(.*?)\}\}", lambda m: job.value(m[1]), str(v)) for k, v in step["with"].items()}
    assert (given["name"], given["path"].split()) == ("vitexport-tiny", ["made/report.html", "made/report.json"])
    job.inputs["artifact"] = "false"
    assert not job.wanted(step)


def test_a_regression_is_told_and_fails_the_job_at_the_end(tmp_path: Path, exported: Path) -> None:
    job = exported_job(tmp_path, exported, {"baseline": "old.json"}, environment={"GH_FOUND": "41\n42"})
    smaller(exported / "report.json", tmp_path / "old.json")
    assert job.run("Compare and write the table").returncode == 0
    assert "### Beside the last export: ❌ regression" in job.summary
    assert job.run("Comment").returncode == 0
    assert job.calls[1]["words"][:4] == ["api", "--method", "PATCH", "repos/me/net/issues/comments/41"]
    done = job.run("Judge")
    assert (done.returncode, job.outputs["judge"]) == (5, {"verdict": "regression"})
    assert "::error::Something became worse since the baseline" in done.stdout


def test_thresholds_are_the_users_and_a_wrong_one_is_said(tmp_path: Path, exported: Path) -> None:
    smaller(exported / "report.json", tmp_path / "old.json")
    job = exported_job(tmp_path, exported, {"baseline": "old.json", "thresholds": "--max-bytes=150\n--max-latency=9\n"})
    assert job.run("Compare and write the table").returncode == 0
    assert job.run("Judge").returncode == 0
    job.inputs["thresholds"] = "--max-bytes=few"
    done = job.run("Compare and write the table")
    assert (done.returncode, "invalid float value: 'few'" in done.stderr) == (2, True)


def test_a_baseline_that_is_not_there_yet_is_no_failure(tmp_path: Path, exported: Path) -> None:
    job = exported_job(tmp_path, exported, {"baseline": "nowhere"})
    assert job.run("Compare and write the table").returncode == 0
    assert "Nothing was compared: there is no baseline yet." in job.summary


@pytest.mark.parametrize("refuses", ["all", "writing"])
def test_a_fork_that_may_not_comment_still_has_the_summary(tmp_path: Path, exported: Path, refuses: str) -> None:
    job = exported_job(tmp_path, exported, environment={"GH_REFUSES": refuses})
    job.run("Compare and write the table")
    done = job.run("Comment")
    assert (done.returncode, "::warning::The comment" in done.stdout) == (0, True)


def test_there_is_no_comment_outside_a_pull_request_or_where_none_is_wanted(tmp_path: Path) -> None:
    job = Job(tmp_path, {})
    assert job.wanted(STEPS["Comment"])
    job.github["event_name"] = "push"
    assert not job.wanted(STEPS["Comment"])
    job.github["event_name"], job.inputs["comment"] = "pull_request", "false"
    assert not job.wanted(STEPS["Comment"])


def test_a_proof_that_fails_has_its_table_and_fails_the_job_at_the_end(tmp_path: Path) -> None:
    job = Job(tmp_path, {"model": f"{TESTS / 'models.py'}:deaf", "precisions": "fp32"})
    done = job.run("Export and prove")
    assert done.returncode == 0, done.stderr
    assert job.outputs["export"]["home"] == "exports/model.failed"
    assert job.run("Compare and write the table").returncode == 0
    assert "❌ failed" in job.summary
    done = job.run("Judge")
    assert (done.returncode, job.outputs["judge"]) == (5, {"verdict": "failed"})


def test_where_it_went_is_read_from_the_report_itself(tmp_path: Path) -> None:
    job = Job(tmp_path, {"model": "m", "out": "a link"})
    (tmp_path / "bin" / "vitexport").write_text("""#!/bin/sh\necho '{"out": "its goal"}'\n""")
    assert job.run("Export and prove").returncode == 0
    assert job.outputs["export"] == {"code": "0", "home": "its goal", "report": "its goal/report.json"}


def test_words_of_an_input_are_options_and_never_commands(tmp_path: Path) -> None:
    """The command line is what the inputs say, word for word; nothing of it is run by the shell."""
    job = Job(
        tmp_path,
        {
            "model": "$(touch broken); a net",
            "targets": "onnx *",
            "sizes": "224 144x256",
            "precisions": "fp32 `touch broken`",
            "arguments": "--weights=random\n--images=my photos\n",
            "out": "-out",
        },
    )
    (tmp_path / "bin" / "vitexport").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > words\nexit 2\n')
    assert job.run("Export and prove").returncode == 2
    assert (tmp_path / "words").read_text().splitlines() == [
        "--model=$(touch broken); a net", "--out=-out", "--force", "--json", "--target=onnx", "--target=*",
        "--size=224", "--size=144x256", "--precision=fp32", "--precision=`touch", "--precision=broken`",
        "--weights=random", "--images=my photos",
    ]  # fmt: skip
    assert not (tmp_path / "broken").exists()


@pytest.mark.parametrize(
    ("targets", "extras", "npm"),
    [
        ("onnx", "hub", False),
        ("onnx coreml", "hub,coreml", False),
        ("webgpu", "hub,webgpu", True),
        ("all", "all", True),
    ],
)
def test_no_more_is_installed_than_the_targets_need(tmp_path: Path, targets: str, extras: str, npm: bool) -> None:
    source = tmp_path / "source" / ".github" / "actions" / "vitexport"
    source.mkdir(parents=True)
    (tmp_path / "source" / ".ci").mkdir()
    for name in ("bin/python3", "bin/npm", "source/.ci/chromium"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho {path.name} "$@" >> "{tmp_path}/installed"\n')
        path.chmod(0o755)
    (tmp_path / "bin").rename(tmp_path / "stand-ins")
    job = Job(tmp_path, {"targets": targets}, {"action_path": str(source)})
    for name in ("python3", "npm"):
        (tmp_path / "stand-ins" / name).rename(tmp_path / "bin" / name)
    done = job.run("Install")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "installed").read_text().splitlines()
    assert lines[0].endswith(f"[{extras}]")
    assert [line.split()[0] for line in lines[1:]] == (["chromium", "npm"] if npm else [])
