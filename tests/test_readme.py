"""The README shows what really happens."""

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx

from actors.settings import MIB, Settings, variable
from tests.service import eventually, running

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
    assert "`system` runs; `store` and `worker` are running actors" in prompt.stderr


def test_the_program_runs_as_printed() -> None:
    (program,) = blocks("python")
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=TOP, capture_output=True, text=True, timeout=60, check=True
    )
    assert (run.stdout, run.stderr) == ("HELLO\n", "")


def test_the_handler_is_the_example_and_does_what_the_readme_says(tmp_path: Path) -> None:
    (handler,) = blocks("py")
    assert handler == (TOP / "examples" / "words.py").read_text()
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be:\nthat is the question\n")
    with running(GOFER_HANDLERS="examples.words:handlers") as service:
        submit = {"type": "count_words", "payload": {"path": str(text)}}
        job = service.client.post("/jobs", json=submit).json()
        assert job["max_retries"] == 2
        service.wait_for(job["id"], "completed")
        assert service.job(job["id"])["result"] == {"lines": 2, "words": 10}
        wrong = service.client.post("/jobs", json={"type": "count_words", "payload": {"path": 5}})
        assert (wrong.status_code, "`$.payload.path`" in wrong.json()["detail"]) == (400, True)


def test_the_settings_are_listed_with_their_defaults() -> None:
    for field, default in zip(Settings.__struct_fields__, Settings.__struct_defaults__, strict=True):
        name, text = variable(field), "none" if default is None else str(default)
        if isinstance(default, bool):
            text = str(int(default))
        if field.endswith("_bytes"):
            text = f"{default // MIB}MiB"
        assert re.search(rf"\| .*`{name}`.* \| .*{re.escape(text)}.* \|", README), name


def test_every_file_that_the_readme_names_is_there() -> None:
    (_, places) = README.split("## Where things are")
    for name in re.findall(r"`([\w./]+)`", places):
        assert (TOP / name).exists() or (TOP / "actors" / name).exists() or (TOP / "api" / name).exists(), (
            name
        )
