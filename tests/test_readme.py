"""The README shows what really happens."""

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
from tests.service import eventually, running

from actors.settings import Settings, variable

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def without_chance(text: str) -> str:
    """Replace what differs from run to run: ids, times, and how far a job has come."""
    text = re.sub(r"[0-9a-f]{16}", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    return re.sub(r'"progress":[\d.]+', '"progress":P', text)


def curl(command: str, url: str, job_id: str) -> str:
    """Do what the curl command says, with another server and another id."""
    words = shlex.split(command.removeprefix("$ "))
    options = list(itertools.pairwise(words))
    headers = dict(value.split(": ") for flag, value in options if flag == "-H")
    body = [value for flag, value in options if flag == "-d"]
    address = re.sub("localhost:8080", url, re.sub("[0-9a-f]{16}", job_id, words[2]))
    method = "POST" if body else "GET"
    return httpx.request(method, address, headers=headers, content="".join(body)).text


def test_the_curls_print_what_the_readme_says() -> None:
    (post, posted), (look, seen), (show, shown) = (block.strip().split("\n") for block in blocks("console"))
    with running() as service:
        answer = curl(post, service.url, "")
        assert without_chance(answer) == without_chance(posted)
        job_id = httpx.Response(200, text=answer).json()["id"]
        answer = eventually(lambda: text if "progress" in (text := curl(look, service.url, job_id)) else None)
        assert without_chance(answer) == without_chance(seen)
        service.wait_for(job_id, "completed")
        assert without_chance(curl(show, service.url, job_id)) == without_chance(shown)


def test_the_prompt_prints_what_the_readme_says() -> None:
    (session,) = blocks("pycon")
    typed = re.findall(r">>> (.*)\n", session)
    printed = re.sub(r">>> .*\n", ">>> ", session) + ">>> "
    prompt = subprocess.run(
        [sys.executable, "-m", "actors"],
        cwd=TOP,
        input="\n".join(typed) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert prompt.stdout.rstrip("\n") == printed.rstrip("\n")
    assert "`store` and `worker` are running actors" in prompt.stderr


def test_the_program_runs_as_printed() -> None:
    (program,) = blocks("python")
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=TOP, capture_output=True, text=True, timeout=60, check=True
    )
    assert (run.stdout, run.stderr) == ("None\n", "")


def test_the_settings_are_listed_with_their_defaults() -> None:
    for field, default in zip(Settings.__struct_fields__, Settings.__struct_defaults__, strict=True):
        name, text = variable(field), str(default)
        assert re.search(rf"\| .*`{name}`.* \| .*`{text}`.* \|", README), name


def test_every_file_that_the_readme_names_is_there() -> None:
    (_, places) = README.split("## Where things are")
    for name in re.findall(r"`([\w./]+)`", places):
        assert (TOP / name).exists() or (TOP / "actors" / name).exists() or (TOP / "api" / name).exists(), (
            name
        )
