#!/usr/bin/env python3
"""Chat templates rendered by transformers, for conversations that templates are known to treat differently.

usage: make_chat.py OUT_FILE [TEMPLATE.jinja ...]
Needs transformers and jinja2. Without templates named: those beside this script, whose origins are
  smollm2   HuggingFaceTB/SmolLM2-135M-Instruct, Apache-2.0
  qwen2.5   Qwen/Qwen2.5-7B-Instruct, Apache-2.0
  qwen3     Qwen/Qwen3-0.6B, Apache-2.0
  turns, headers   written for this repository, after the formats of Gemma and of Llama 3
Others can be named to check templates that may not be committed (see tests/models/templates.rs).
"""
import glob, json, os, sys
from transformers.utils.chat_template_utils import render_jinja_template

here = os.path.dirname(os.path.abspath(__file__))
out, files = sys.argv[1], sys.argv[2:] or sorted(glob.glob(os.path.join(here, "chat", "*.jinja")))

def say(*turns):
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[role], "content": text} for role, text in turns]

CONVERSATIONS = [
    say(("u", "hello")),
    say(("s", "You extract."), ("u", "table album(id, title)")),
    say(("s", "  spaces  \n"), ("u", "\n  leading and trailing \n\n"), ("a", " ok \n"), ("u", "go on")),
    say(("u", "<b>&amp; \"quoted\" 'single' \\n {{ 7 * 7 }} {% raw %}")),
    say(("u", "Größe 12 µm, 今日, 😀"), ("a", "<think>\nhm\n</think>\n\nfine"), ("u", "and now?")),
    say(("u", "1"), ("a", "<think>first</think>one"), ("u", "2"), ("a", "two"), ("u", "3")),
    say(("s", ""), ("u", "")),
    say(("u", "a"), ("u", "b")),
    say(("a", "I begin"), ("u", "no, I do")),
    say(("u", "mid"), ("s", "a system message in between"), ("u", "end")),
]
BOS, EOS = "<s>", "</s>"
result = []
for file in files:
    template = open(file).read()
    cases = []
    for messages in CONVERSATIONS:
        try:
            text = render_jinja_template(
                [messages], chat_template=template, add_generation_prompt=True, tools=None, documents=None,
                bos_token=BOS, eos_token=EOS, enable_thinking=False)[0][0]
        except Exception as refused:
            text = None
            print(os.path.basename(file), "refuses:", refused)
        cases.append({"messages": messages, "text": text})
    result.append({"name": os.path.basename(file), "template": template, "bos": BOS, "eos": EOS, "cases": cases})
json.dump(result, open(out, "w"), indent=1, ensure_ascii=False)
