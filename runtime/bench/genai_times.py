"""Times models in onnxruntime-genai for onnx-fuse, in turns. Started by genai-times.ts.

    python genai_times.py version          prints {"version": ...}
    python genai_times.py time < request   prints {"done": ..., "total": ...} after every turn, then {"times": [...]}

A request has folders, vocabulary, context, batch, rounds, prompt, tokens and milliseconds. The times of a folder are
{"token": [...], "prompt": [...]}: seconds, one of each a round. The first round warms up and is not told.
"""

import json
import sys
import time

import onnxruntime_genai as genai


def say(value):
    print(json.dumps(value), flush=True)


class Timed:
    """A model, and a text behind which it decodes."""

    def __init__(self, folder, request):
        import numpy

        self.model = genai.Model(folder)
        self.request = request
        length, batch = request["context"], request["batch"]
        ids = [[(7919 * i + 131 * row + 13) % request["vocabulary"] for i in range(length)] for row in range(batch)]
        self.ids = numpy.array(ids if batch > 1 else ids[0], dtype=numpy.int32)
        # No end of text ends a text that is timed.
        most = length + (request["rounds"] + 2) * (request["tokens"] + 1)
        params = genai.GeneratorParams(self.model)
        params.set_search_options(batch_size=batch, max_length=most, min_length=most, do_sample=False)
        self.generator = genai.Generator(self.model, params)
        self.is_begun = False

    def turn(self):
        """Seconds of the prompt (None where it was not run) and of one token (the median)."""
        prompt = None
        if self.request["prompt"] or not self.is_begun:
            if self.is_begun:
                self.generator.rewind_to(0)
            began = time.perf_counter()
            self.generator.append_tokens(self.ids)
            self.generator.generate_next_token()
            prompt = time.perf_counter() - began
            self.is_begun = True
        tokens = []
        # As in onnxruntime-node: the first one warms up, and two are enough where they take long.
        while len(tokens) < 2 or (
            len(tokens) < self.request["tokens"] and 1000 * sum(tokens) < self.request["milliseconds"]
        ):
            began = time.perf_counter()
            self.generator.generate_next_token()
            tokens.append(time.perf_counter() - began)
        counted = sorted(tokens[1:])
        half = len(counted) // 2
        return prompt, (counted[half] + counted[(len(counted) - 1) // 2]) / 2


def main():
    if sys.argv[1:] == ["version"]:
        say({"version": genai.__version__})
        return
    request = json.load(sys.stdin)
    models = [Timed(folder, request) for folder in request["folders"]]
    times = [{"token": [], "prompt": []} for _ in models]
    total = (request["rounds"] + 1) * len(models)
    done = 0
    for turn in range(request["rounds"] + 1):
        order = list(range(len(models)))
        for index in reversed(order) if turn % 2 else order:
            # The threads of the model before it spin for a while.
            time.sleep(0.02)
            prompt, token = models[index].turn()
            done += 1
            say({"done": done, "total": total})
            if turn == 0:
                continue
            times[index]["token"].append(token)
            if request["prompt"]:
                times[index]["prompt"].append(prompt)
    say({"times": times})


main()
