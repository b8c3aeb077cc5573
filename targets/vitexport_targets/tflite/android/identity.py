"""Which device it is, from what Android says of itself: a model, a build and a chip, or it is none.

Figures are worth what stands beside them. So a device without a name is refused, and one that says it is emulated, or
that has an emulator's hardware, is a stand-in. Whoever forges all properties of a real device can forge a report as
well: this keeps mistakes out, not liars.
"""

from __future__ import annotations

from collections.abc import Mapping

from vitexport.contract import Device
from vitexport.errors import BadRequest

_NAME = ("ro.product.manufacturer", "ro.product.model")
_RELEASE = "ro.build.version.release"
_FINGERPRINT = "ro.build.fingerprint"

#: The first that is there: Android 12 names the chip, older ones the platform or the board.
_CHIP = ("ro.soc.model", "ro.board.platform", "ro.hardware.chipname", "ro.hardware")

#: Android's emulator (goldfish, ranchu), Google's in the cloud (cutfish, cuttlefish), Genymotion (vbox).
_EMULATED_HARDWARE = ("goldfish", "ranchu", "cutf", "vsoc", "vbox", "redroid", "gce_x86")


def described(serial: str, properties: Mapping[str, str]) -> Device:
    """The device, without a runtime or a provider yet. Raises ``BadRequest`` where it does not say what it is."""
    maker, model = (properties.get(name, "").strip() for name in _NAME)
    release, fingerprint = properties.get(_RELEASE, "").strip(), properties.get(_FINGERPRINT, "").strip()
    chip = next((found for name in _CHIP if (found := properties.get(name, "").strip())), "")
    missing = [
        name
        for name, value in ((_NAME[1], model), (_RELEASE, release), (_FINGERPRINT, fingerprint), (_CHIP[0], chip))
        if not value
    ]
    if missing:
        raise BadRequest(
            f"The device {serial} does not say what it is (no {', '.join(missing)} in getprop), and figures of nobody "
            "are filed nowhere. Attach a device that runs Android."
        )
    name = model if not maker or model.lower().startswith(maker.lower()) else f"{maker} {model}"
    facts = {
        "os": f"Android {release}",
        "soc": chip,
        "build": fingerprint,
        "abi": properties.get("ro.product.cpu.abi", ""),
    }
    emulated = is_emulated(serial, properties)
    return Device(
        f"{name} (emulator)" if emulated else name,
        "",
        "",
        software=emulated,
        facts={key: value for key, value in facts.items() if value},
    )


def is_emulated(serial: str, properties: Mapping[str, str]) -> bool:
    """By the flags that emulators set (``ro.kernel.qemu``, since Android 12 ``ro.boot.qemu``), or their hardware."""
    flagged = any(properties.get(name) == "1" for name in ("ro.kernel.qemu", "ro.boot.qemu"))
    hardware = " ".join(properties.get(name, "") for name in ("ro.hardware", "ro.boot.hardware", "ro.product.board"))
    characteristics = properties.get("ro.build.characteristics", "").split(",")
    return (
        flagged
        or "emulator" in characteristics
        or serial.startswith("emulator-")
        or any(name in hardware.lower() for name in _EMULATED_HARDWARE)
    )
