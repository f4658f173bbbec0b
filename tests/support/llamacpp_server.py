"""The program of tests.support.llamacpp: serves a model of tests.support.gguf from a directory.

Its first line tells where it listens. The model says the same as the fakes of tests.support.servers do,
token by token; asked to babble it says anything.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import xllamacpp

from tests.support.gguf import END, write_model
from tests.support.llamacpp import MODEL

# What follows is chosen here: the model itself only goes on from the last token.
TEMPLATE = """\
{%- if tools %}
{{- '<|im_start|>system\n# Tools\n<tools>' }}
{%- for tool in tools %}{{ '\n' }}{{ tool | tojson }}{% endfor %}
{{- '\n</tools>\nFor each call: <tool_call>\n{"name": ..., "arguments": ...}\n</tool_call><|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' }}
{%- if message.reasoning_content %}{{ '<think>\n' + message.reasoning_content + '\n</think>\n' }}{% endif %}
{%- if message.content %}{{ message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}
{{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}
{{- '}\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- set last = messages[-1] %}
{%- if last.role == 'user' and ('babble' in last.content or 'Count' in last.content) %}
{%- elif last.role == 'user' and ('think' in last.content or 'Think' in last.content) %}{{ '<|think|>' }}
{%- elif last.role == 'user' and tools and 'weather' in last.content %}
{{- '<|call|>' if tools | length > 1 else '<|one|>' }}
{%- elif last.role == 'user' and tools and 'ping' in last.content %}{{ '<|ping|>' }}
{%- elif last.role == 'user' and 'Ada' in last.content %}{{ '<|ada|>' }}
{%- else %}{{ '<|say|>' }}
{%- endif %}
{%- endif %}"""
CHAINS = [
    ["<|say|>", "Hello", ".", END],
    ["<|think|>", "<think>", "\nLet me", " see.", "\n</think>\n", "Hel", "lo.", END],
    [
        "<|call|>", "I will", " look.", "\n<tool_call>", '\n{"name": "get_weather",',
        ' "arguments": {"city":', ' "Paris"}}\n', "</tool_call>", "\n<tool_call>\n",
        '{"name": "get_time", "arguments"', ": {}}", "\n</tool_call>", END,
    ],
    # Where its schema demands an argument.
    ['{"name": "get_time", "arguments"', ': {"tz": "CET"}}', "\n</tool_call>"],
    # What the doctor asks for beside.
    [
        "<|one|>", '<tool_call>\n{"name": "get_weather"', ', "arguments": {"city"', ': "Paris"}}',
        "\n</tool_call>", END,
    ],
    ["<|ping|>", '<tool_call>\n{"name":', ' "ping", "arguments": {}}', "\n</tool_call>"],
    ["<|ada|>", '{"name":', ' "Ada", "age": 36', "}", END],
]  # fmt: skip


def serve(directory: Path) -> None:
    """Serve the model at a free port until SIGTERM."""
    path = directory / "tiny.gguf"
    write_model(path, TEMPLATE, CHAINS)
    # Read here and nowhere else, or it ends the process in the midst of its threads.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server = xllamacpp.Server(_settings(path))
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM})


def _settings(path: Path) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = 2
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.n_predict = 64
    # The same babble in every run.
    params.sampling.seed = 1
    params.warmup = False
    return params


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
