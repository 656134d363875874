"""What the tests of the HTTP interface share: one server a script, requests that must be well, and
the shapes of OpenAI's responses. Standard library only."""
import json
import os
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from harness import Failure  # noqa: E402
from served import Served, make_model  # noqa: E402

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
SIGMOE = "build/release/sigmoe"


class Api(unittest.TestCase):
    """Tests against one server, started for the class with `options` over model()."""
    options = ()
    workers = 2

    @classmethod
    def model(cls, tmp):
        return make_model(SIGMOE, os.path.join(tmp, "tiny"))

    @classmethod
    def setUpClass(cls):
        cls.tmp = tempfile.TemporaryDirectory(prefix="sigmoe-api-")
        cls.addClassCleanup(cls.tmp.cleanup)
        cls.server = Served(SIGMOE, cls.model(cls.tmp.name), *cls.options, workers=cls.workers)
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None)

    def good(self, path, value, timeout=60):
        status, answer = self.server.post(path, value, timeout)
        self.assertEqual(status, 200, answer)
        return answer

    def text(self, **fields):
        return self.good(TEXT, {"temperature": 0, "max_tokens": 8, **fields})

    def choice(self, **fields):
        return self.text(**fields)["choices"][0]

    def talk(self, content="The gate", **fields):
        return self.good(CHAT, {"messages": [{"role": "user", "content": content}],
                                "temperature": 0, "max_tokens": 8, **fields})

    def refused(self, path, value, status, param=None, code=None):
        got, answer = self.server.post(path, value)
        self.assertEqual(got, status, answer)
        error = answer["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertTrue(error["message"])
        if param is not None:
            self.assertEqual(error["param"], param, error)
        if code is not None:
            self.assertEqual(error["code"], code, error)
        return error

    def ids(self, text, special=False):
        return self.good("/tokenize", {"prompt": text, "add_special_tokens": special})["tokens"]


def main():
    global SIGMOE
    if len(sys.argv) > 2 and sys.argv[1] == "--sigmoe":
        SIGMOE = sys.argv[2]
        del sys.argv[1:3]
    sys.modules["case"].SIGMOE = SIGMOE
    unittest.main(module="__main__", warnings="ignore")


# ---- shapes: OpenAI's published description of the responses, as much of it as is required ----------

NULL = type(None)
LOGPROB = {"token": str, "logprob": (int, float), "bytes": (list, NULL)}
USAGE = {"prompt_tokens": int, "completion_tokens": int, "total_tokens": int}
CALL = {"id": str, "type": str, "function": {"name": str, "arguments": str}}
MESSAGE = {"role": str, "content": (str, NULL), "refusal": (str, NULL)}
CHAT_CHOICE = {"index": int, "message": MESSAGE, "logprobs": (dict, NULL), "finish_reason": str}
CHAT_RESPONSE = {"id": str, "object": str, "created": int, "model": str, "choices": [CHAT_CHOICE],
                 "usage": USAGE}
CHUNK_CHOICE = {"index": int, "delta": dict, "finish_reason": (str, NULL)}
CHUNK = {"id": str, "object": str, "created": int, "model": str, "choices": [CHUNK_CHOICE]}
TEXT_CHOICE = {"index": int, "text": str, "logprobs": (dict, NULL), "finish_reason": (str, NULL)}
TEXT_RESPONSE = {"id": str, "object": str, "created": int, "model": str, "choices": [TEXT_CHOICE],
                 "usage": USAGE}
REASONS = {"stop", "length", "tool_calls", "content_filter"}


def check_shape(value, shape, at="response"):
    """A Failure names the place where value is not of the shape."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise Failure(f"{at} is no object: {value!r}")
        for name, inner in shape.items():
            if name not in value:
                raise Failure(f"{at}.{name} is missing in {json.dumps(value)[:200]}")
            check_shape(value[name], inner, f"{at}.{name}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise Failure(f"{at} is no list: {value!r}")
        for i, item in enumerate(value):
            check_shape(item, shape[0], f"{at}[{i}]")
    elif not isinstance(value, shape) or (isinstance(value, bool) and shape in (int, (int, float))):
        raise Failure(f"{at} is {value!r}, not {shape}")
