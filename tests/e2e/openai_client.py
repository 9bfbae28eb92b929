"""What users of the official client do, against a server whose models are small and random.

Models: `alpha` and `beta` are ready, `asleep` is not loaded.
"""

import io
import json
import time
from enum import Enum
from typing import List

import openai
from openai import OpenAI
from pydantic import BaseModel, Field

client = OpenAI(max_retries=0, timeout=60)


class Kind(str, Enum):
    letter = "letter"
    bill = "bill"


class Position(BaseModel):
    article: Kind
    amount: int = Field(ge=1, le=99)


class Invoice(BaseModel):
    kind: Kind
    paid: bool
    positions: List[Position] = Field(max_length=2)


def line(custom_id, model="alpha", **body):
    body = {"model": model, "messages": [{"role": "user", "content": f"This is {custom_id}."}], "max_tokens": 8} | body
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def upload(lines):
    text = "".join((part if isinstance(part, str) else json.dumps(part)) + "\n" for part in lines)
    return client.files.create(file=("requests.jsonl", io.BytesIO(text.encode())), purpose="batch")


def create(lines, **more):
    return client.batches.create(
        input_file_id=upload(lines).id, endpoint="/v1/chat/completions", completion_window="24h", **more
    )


def until(batch, *states, at=lambda batch: True):
    begun = time.monotonic()
    while not (batch.status in states and at(batch)):
        assert time.monotonic() - begun < 40, f"not {states}: {batch}"
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    return batch


def read(file_id):
    response = client.files.content(file_id)
    lines = [json.loads(text) for text in response.text.splitlines()]
    return lines, response.response.headers.get("x-incomplete") == "true"


def refused(kind, call, **fields):
    try:
        call()
    except kind as error:
        for name, value in fields.items():
            assert getattr(error, name) == value, (name, getattr(error, name), error.body)
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def models():
    names = [model.id for model in client.models.list()]
    assert names == ["asleep", "alpha", "beta"], names
    assert client.models.retrieve("alpha").id == "alpha"
    refused(openai.NotFoundError, lambda: client.models.retrieve("nobody"), code="model_not_found")


def files():
    file = upload([line("a")])
    assert (file.object, file.purpose, file.status, file.filename) == ("file", "batch", "processed", "requests.jsonl")
    assert client.files.retrieve(file.id) == file
    assert json.loads(client.files.content(file.id).read()) == line("a")
    assert file.id in [listed.id for listed in client.files.list(purpose="batch")]
    assert client.files.delete(file.id).deleted
    refused(openai.NotFoundError, lambda: client.files.retrieve(file.id), code="not_found")
    refused(
        openai.BadRequestError,
        lambda: client.files.create(file=b"{}", purpose="fine-tune"),
        param="purpose",
        type="invalid_request_error",
    )


def a_batch_from_end_to_end():
    schema = {"type": "json_schema", "json_schema": {"name": "invoice", "strict": True, "schema": {
        "type": "object", "properties": {"kind": {"enum": ["letter", "bill"]}}, "required": ["kind"],
        "additionalProperties": False}}}
    lines = [line(f"free-{n}") for n in range(20)]
    lines += [line(f"schema-{n}", "beta", response_format=schema, max_tokens=60) for n in range(20)]
    lines += [line("probable", logprobs=True, top_logprobs=2), line("hot", temperature=1.0, seed=5, stop=["zzzz"])]
    lines.insert(3, "this is no JSON")
    lines.insert(9, line("tools", tools=[{"type": "function", "function": {"name": "f"}}]))
    lines.insert(11, line("free-0"))
    # keeps the batch open until it is cancelled or its model is loaded
    lines.append(line("sleeps", "asleep"))

    batch = create(lines, metadata={"run": "end to end"})
    assert batch.object == "batch" and batch.status in ("validating", "in_progress"), batch
    assert batch.metadata == {"run": "end to end"} and batch.errors is None
    n_good, n_bad = 42, 3
    # results can be read while the batch runs
    batch = until(batch, "in_progress", at=lambda b: b.request_counts.completed + b.request_counts.failed == n_good + n_bad)
    assert batch.request_counts.total == len(lines)
    partial, is_incomplete = read(batch.output_file_id)
    assert is_incomplete and len(partial) == n_good, (is_incomplete, len(partial))
    assert batch.id in [listed.id for listed in client.batches.list(limit=5)]

    client.with_options(max_retries=2).post("/models/asleep/load", cast_to=object)
    batch = until(batch, "completed")
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (len(lines), n_good + 1, n_bad), counts
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at < batch.expires_at
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens > 0
    output, is_incomplete = read(batch.output_file_id)
    assert not is_incomplete and all(row in output for row in partial)
    assert client.files.retrieve(batch.output_file_id).purpose == "batch_output"
    answers = {row["custom_id"]: row["response"]["body"] for row in output}
    assert len(answers) == n_good + 1
    for name, answer in answers.items():
        completion = openai.types.chat.ChatCompletion.model_validate(answer)
        choice = completion.choices[0]
        assert choice.finish_reason in ("stop", "length") and completion.usage.total_tokens > 0
        assert completion.model == {"schema": "beta", "sleeps": "asleep"}.get(name.split("-")[0], "alpha")
        if name.startswith("schema"):
            assert json.loads(choice.message.content)["kind"] in ("letter", "bill")
    probable = answers["probable"]["choices"][0]["logprobs"]["content"]
    assert probable and all(len(token["top_logprobs"]) == 2 for token in probable)

    errors, _ = read(batch.error_file_id)
    by_line = {row["line"]: row for row in errors}
    assert sorted(by_line) == [4, 10, 12], by_line
    assert by_line[4]["custom_id"] is None and by_line[4]["error"]["message"].startswith("line 4: ")
    assert by_line[10]["custom_id"] == "tools" and by_line[10]["error"]["param"] == "body.tools"
    assert by_line[12]["custom_id"] == "free-0" and by_line[12]["error"]["param"] == "custom_id"
    refused(openai.ConflictError, lambda: client.batches.cancel(batch.id), code="invalid_state")


def a_batch_that_is_cancelled():
    client.post("/models/asleep/unload", cast_to=object)
    begun = time.monotonic()
    while client.models.retrieve("asleep").state != "not_loaded":
        assert time.monotonic() - begun < 30
        time.sleep(0.05)
    batch = create([line("runs"), line("waits", "asleep"), line("waits too", "asleep")])
    batch = until(batch, "in_progress", at=lambda b: b.request_counts.completed == 1)
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    batch = until(batch, "cancelled")
    assert batch.cancelling_at and batch.cancelled_at
    assert [row["custom_id"] for row in read(batch.output_file_id)[0]] == ["runs"]
    assert {row["error"]["code"] for row in read(batch.error_file_id)[0]} == {"batch_cancelled"}


def a_batch_that_fails():
    batch = until(create([line("a", "nobody")]), "failed")
    error = batch.errors.data[0]
    assert (error.code, error.line, error.param) == ("model_not_found", 1, "body.model"), error
    assert batch.failed_at and batch.output_file_id is None


def chat():
    messages = [{"role": "system", "content": "Read it."}, {"role": "user", "content": "Total: 45 EUR"}]
    parsed = client.chat.completions.parse(
        model="alpha", messages=messages, response_format=Invoice, temperature=1.2, seed=11, max_tokens=400
    )
    invoice = parsed.choices[0].message.parsed
    assert isinstance(invoice, Invoice) and invoice.kind in Kind, parsed
    again = client.chat.completions.parse(
        model="alpha", messages=messages, response_format=Invoice, temperature=1.2, seed=11, max_tokens=400
    )
    assert again.choices[0].message.content == parsed.choices[0].message.content
    # what was answered can be sent back
    messages += [again.choices[0].message, {"role": "user", "content": "And now?"}]
    whole = client.chat.completions.create(model="alpha", messages=messages, max_completion_tokens=24, logprobs=True, top_logprobs=1)
    assert len(whole.choices[0].logprobs.content) == whole.usage.completion_tokens <= 24

    chunks = list(client.chat.completions.create(
        model="alpha", messages=messages, max_completion_tokens=24, stream=True, stream_options={"include_usage": True}
    ))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content and len(chunks) > 4
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    with client.chat.completions.stream(model="alpha", messages=messages, response_format=Invoice, seed=3, temperature=1.2,
                                        max_tokens=400) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Invoice)

    ask = lambda **more: lambda: client.chat.completions.create(**({"model": "alpha", "messages": messages} | more))
    refused(openai.NotFoundError, ask(model="nobody"), code="model_not_found", param="model")
    refused(openai.BadRequestError, ask(n=2), param="n", type="invalid_request_error")
    refused(openai.BadRequestError, ask(presence_penalty=1), param="presence_penalty")
    asleep = refused(openai.InternalServerError, ask(model="asleep"), status_code=503, code="model_not_ready")
    assert int(asleep.response.headers["retry-after"]) > 0 and asleep.type == "server_error"


for step in (models, files, a_batch_from_end_to_end, a_batch_that_is_cancelled, a_batch_that_fails, chat):
    begun = time.monotonic()
    step()
    print(f"{step.__name__}: {time.monotonic() - begun:.1f} s")
print("all of it works")
