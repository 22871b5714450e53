"""The documents agree with the code they describe: tables, messages, keys and links."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from iii.engine.config.project import STANDARD_WORKERS
from iii.engine.supervision.lifecycle import ENTER, MOVES
from iii.protocol import messages

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])


def block_after(text: str, marker: str) -> str:
    """The fenced block that follows an HTML comment."""
    match = re.search(rf"<!-- {marker} -->\n```\w*\n(.*?)```", text, re.DOTALL)
    assert match, marker
    return match[1]


def diagram() -> str:
    """Return the lifecycle's tables as text, one line per transition."""
    lines = []
    for desired, table in MOVES.items():
        lines.append(f"desired {desired.value}:")
        for actual, moves in table.items():
            lines += [
                f"  {actual.value:<8}  --{event.value}-->  {after.value:<8}  [{ENTER[after].value}]"
                for event, after in moves.items()
            ]
    return "\n".join(lines)


def test_the_architecture_shows_the_lifecycle_tables_as_they_are() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert block_after(text, "lifecycle") == diagram() + "\n"


def test_the_architecture_shows_every_room_and_names_classes_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text.partition("```\n")[2].partition("```")[0]
    rooms = {path.parent.name for folder in ("iii", "cli") for path in (ROOT / folder).rglob("__init__.py")}
    assert {room for room in rooms if f"{room}/ " not in tree} <= {"iii", "cli"}
    sources = [path for folder in ("iii", "stdlib_workers") for path in (ROOT / folder).rglob("*.py")]
    source = "".join(path.read_text(encoding="utf-8") for path in sources)
    classes = set(re.findall(r"^(?:class )?(\w+)(?:\(|:| = )", source, re.MULTILINE))
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([A-Z]\w+)`", row)}
    assert len(named) > 80
    assert named - classes == set()


def test_the_diagram_has_one_line_for_every_transition() -> None:
    transitions = sum(len(moves) for table in MOVES.values() for moves in table.values())
    assert diagram().count("-->") == transitions
    assert "starting  --ready sent-->  ready     [promote]" in diagram()


def test_the_protocol_names_every_message() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    tags = {kind.__struct_config__.tag for kind in messages.Message.__subclasses__()}
    assert len(tags) > 15
    assert {tag for tag in tags if f"`{tag}`" not in text} == set()


def test_the_page_of_the_standard_workers_has_all_of_them() -> None:
    text = (ROOT / "docs" / "standard-workers.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `\[workers\.(\w+)\]`", text, re.MULTILINE)) == set(STANDARD_WORKERS)


def test_the_api_page_and_the_index_are_what_their_sources_say() -> None:
    command = [sys.executable, "scripts/api-docs", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_index_for_agents_says_of_every_page_what_it_is_about() -> None:
    text = (ROOT / "docs" / "llms.txt").read_text(encoding="utf-8")
    lines = dict(re.findall(r"^- \[(.+?\.md)\]\(\1\): (.+)$", text, re.MULTILINE))
    assert lines.keys() == {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    assert [name for name, summary in lines.items() if not 20 < len(summary) < 300] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_that_exist(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_readme_opens_with_the_two_commands() -> None:
    opening = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    start, check = re.findall(r"```bash\n(.*?)\n```", opening, re.DOTALL)
    assert start.endswith("iii dev")
    assert (ROOT / check).is_file()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
