"""What calls between engines need of the NATS servers, and what to do where it is not so. Pure."""

from __future__ import annotations

# Tested with this version; older ones lack what engines rely on when a server or an engine dies.
LEAST_VERSION = (2, 15)
# NATS's default. With less, large messages travel in smaller pieces, and slower.
USUAL_PAYLOAD = 1024 * 1024
# Two servers are no better than one: neither knows which of them is cut off.
LEAST_SERVERS = 3


def unmet_requirements(version: tuple[int, int], *, max_payload: int, servers: int) -> list[str]:
    """Return a sentence for each requirement that is not met. Calls between engines work without them, less well."""
    sentences = []
    if version < LEAST_VERSION:
        running, least = (f"{major}.{minor}" for major, minor in (version, LEAST_VERSION))
        sentences.append(
            f"the NATS server is version {running}; upgrade it to {least} or newer, which this was tested with"
        )
    if max_payload < USUAL_PAYLOAD:
        sentences.append(
            f"the NATS server takes messages of {max_payload} bytes; set max_payload: 1MB, or large calls are slow"
        )
    if servers < LEAST_SERVERS:
        what = "one NATS server is" if servers == 1 else f"{servers} NATS servers are"
        sentences.append(f"{what} known; run {LEAST_SERVERS}, so that the loss of one cuts no engine off")
    return sentences
