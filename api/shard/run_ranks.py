"""Runs the ranks that `onnx-fuse shard --collectives external` wrote beside this file, a process a rank, on stock onnxruntime.

    torchrun --nproc-per-node 2 run_ranks.py --prompt "Once upon a time" --tokens 48 [--device cuda]

Needs onnxruntime, numpy, torch (gloo between CPUs, nccl between GPUs), and tokenizers where the folder has a tokenizer.json.
To embed it, in every process of the group: `for token in Ranks(folder, Group("cpu")).generate(ids, 48): ...`
"""

import argparse
import contextlib
import hashlib
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
import torch.distributed as dist
from onnxruntime import OrtValue

FOLDER = Path(__file__).resolve().parent
say = lambda words: print(f"run_ranks: {words}", file=sys.stderr, flush=True)  # noqa: E731


class Refused(Exception):
    """What the user can mend."""


class Group:
    """torch.distributed; torchrun says who is who. OrtValues are shared with it by DLPack: nothing is copied to the host."""

    def __init__(self, device):
        if "RANK" not in os.environ:
            raise Refused("it was started alone; start it with torchrun --nproc-per-node N")
        self.device, self.local = device, int(os.environ["LOCAL_RANK"])
        torch.set_num_threads(1)
        if device == "cuda":
            torch.cuda.set_device(self.local)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def meet(self, value, meeting):
        """What the ranks have together, of what each of them has."""
        own = torch.from_dlpack(value)
        if meeting["kind"] == "all-reduce":
            dist.all_reduce(own)
        else:
            parts = [torch.empty_like(own) for _ in range(self.size)]
            dist.all_gather(parts, own)
            value = OrtValue.from_dlpack(torch.cat(parts, meeting["axis"]))
        if self.device == "cuda":  # onnxruntime has a stream of its own.
            torch.cuda.synchronize()
        return value

    def exchange(self, thing):
        things = [None] * self.size
        dist.all_gather_object(things, thing)
        return things

    def of_first(self, number):
        dist.broadcast(number := torch.tensor([number]), 0)
        return int(number[0])

    def watch(self):
        """Ends this process when another one dies: rank 0 is connected to each, and the system closes what a dead one had."""
        host, server = os.environ["MASTER_ADDR"], None
        if self.rank == 0:
            server = socket.create_server((host if host in ("localhost", "127.0.0.1") else "", 0))
        port, key = self.exchange((server.getsockname()[1], os.urandom(16).hex()) if server else None)[0]
        self.peers = {} if server else {socket.create_connection((host, port), 30): 0}
        self.tell(f"{key} {self.rank}")
        while server and len(self.peers) < self.size - 1:
            peer = server.accept()[0]
            words = peer.recv(64).decode(errors="replace").split()
            self.peers.update({peer: int(words[1])} if words[:1] == [key] else {})
        for peer in self.peers:
            peer.settimeout(None)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"):  # A machine that is gone shows after 6 seconds.
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name, socket.TCP_NODELAY), 2)
            threading.Thread(target=self.listen, args=[peer], daemon=True).start()

    def listen(self, peer):
        words = ""
        with contextlib.suppress(OSError):
            words = peer.recv(4096).decode(errors="replace").strip()
        if words != "done":
            words = words or f"rank {self.peers[peer]} died"
            self.tell(words)
            say(f"rank {self.rank} ends: {words}")
            os._exit(1)

    def tell(self, words):
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.sendall(f"{words}\n".encode())


class Ranks:
    """The model, of which this process holds one rank."""

    def __init__(self, folder, group, threads=0):
        text = Path(folder, "ranks.json").read_bytes()
        facts = json.loads(text)
        if facts["ranks"] != group.size:
            raise Refused(f"the folder is cut for {facts['ranks']} ranks, and {group.size} processes were started")
        for rank, digest in enumerate(digests := group.exchange(hashlib.sha256(text).hexdigest())):
            if digest != digests[0]:
                raise Refused(f"rank {rank} has another ranks.json than rank 0: they are of two runs of onnx-fuse shard")
        self.chain, self.group, own = facts["chain"], group, facts["rankFiles"][group.rank]
        for entry in own["sums"]:
            path = Path(folder, entry["file"])
            if not path.is_file():
                raise Refused(f"{path} is missing")
            if hashlib.sha256(np.memmap(path, mode="r")).hexdigest() != entry["sha256"]:
                raise Refused(f"{path} is not what ranks.json describes: it is of another run of onnx-fuse shard")
        provider = "CUDAExecutionProvider" if group.device == "cuda" else "CPUExecutionProvider"
        if provider not in ort.get_available_providers():
            raise Refused(f"onnxruntime has no {provider} here; install onnxruntime-gpu")
        options, near = ort.SessionOptions(), int(os.environ.get("LOCAL_WORLD_SIZE", group.size))
        options.intra_op_num_threads, options.log_severity_level = threads or max(1, os.cpu_count() // near), 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = [(provider, {"device_id": group.local} if group.device == "cuda" else {})]
        files = [segment["file"] and Path(folder, own["model"], segment["file"]) for segment in self.chain["segments"]]
        self.sessions = [file and ort.InferenceSession(file, options, providers) for file in files]

    def start(self, room):
        """Begins a text of at most `room` tokens. Caches that an operator writes in place have memory for all of them."""
        self.past, self.times, self.caches, self.in_place = 0, [], {}, {}
        for cache in self.chain["caches"]:
            sizes = {"batch": 1, "past": room if cache["in_place"] else 0}
            zeros = np.zeros([sizes.get(dim, dim) for dim in cache["dims"]], cache["dtype"])
            self.caches[cache["past"]] = OrtValue.ortvalue_from_numpy(zeros, self.group.device, self.group.local)
            self.in_place[cache["present"]] = self.caches[cache["past"]] if cache["in_place"] else None

    def step(self, ids):
        """The logits [tokens, vocabulary] behind each of `ids`, which follow the tokens of the steps before."""
        inside, between, values, group = 0.0, 0.0, dict(self.caches), self.group
        for spec in self.chain["inputs"]:
            values[spec["name"]] = OrtValue.ortvalue_from_numpy(filled(spec, ids, self.past))
        for segment, session in zip(self.chain["segments"], self.sessions):
            began = time.perf_counter()
            if session:
                binding = session.io_binding()
                for name in segment["reads"]:
                    binding.bind_ortvalue_input(name, values[name])
                for name in segment["gives"]:
                    place = self.in_place.get(name)
                    binding.bind_ortvalue_output(name, place) if place else binding.bind_output(name, group.device, group.local)
                session.run_with_iobinding(binding)
                values.update(zip(segment["gives"], binding.get_outputs()))
            middle = time.perf_counter()
            for meeting in segment["meets"]:
                values[meeting["gets"]] = group.meet(values[meeting["gives"]], meeting)
            inside, between = inside + middle - began, between + time.perf_counter() - middle
            for name in segment["drops"]:
                del values[name]
        self.caches = {cache["past"]: values[cache["present"]] for cache in self.chain["caches"]}
        self.past += len(ids) if self.caches else 0
        self.times.append([inside, between])
        logits = values[self.chain["logits"]].numpy()
        return logits.reshape(-1, logits.shape[-1]).astype(np.float32)

    def generate(self, ids, tokens, temperature=0.0, seed=0, on_logits=lambda logits: None):
        """Yields tokens until one ends the text, the same on all ranks: rank 0 chooses them."""
        random, ids = np.random.default_rng(seed), list(ids)
        self.start(len(ids) + tokens)
        for index in range(tokens):
            logits = self.step(ids[-1:] if index and self.caches else ids)
            on_logits(logits)
            ids.append(self.group.of_first(chosen(logits[-1], temperature, random)))
            yield ids[-1]
            if ids[-1] in self.chain["ends"]:
                return


def filled(spec, ids, past):
    """The value of a graph input, by what it is for."""
    total, dtype = past + len(ids), np.dtype(spec["dtype"])
    sizes = {"batch": 1, "fresh": len(ids), "past": past, "total": total}
    dims = [sizes.get(dim, dim) for dim in spec["dims"]]
    places = np.arange(dims[-1] if dims else 1)
    seen = places <= past + np.arange(len(ids))[:, None]
    hidden = np.where(seen, 0, np.finfo(dtype).min) if dtype.kind == "f" else seen
    values = {"tokens": ids, "mask": places < total, "bias": hidden, "positions": past + places, "segments": 0}
    values |= {"use-cache": past > 0, "past-length": past, "new-length": len(ids), "total-length": total, "last-index": total - 1}
    return np.array(np.broadcast_to(values[spec["role"]], dims), dtype)


def chosen(scores, temperature, random):
    if temperature <= 0:
        return int(scores.argmax())
    weights = np.exp((scores - scores.max()).astype(np.float64) / temperature)
    return int(random.choice(len(scores), p=weights / weights.sum()))


def run(args, group):
    ranks, logits = Ranks(FOLDER, group, args.threads), []
    text, tokenizer = ranks.chain["text"], None
    if not args.ids and (text is None or not args.prompt):
        raise Refused("there is nothing to continue: give --prompt, or --ids 1,2,3 where the folder has no tokenizer")
    if text not in (None, "bytes"):
        from tokenizers import Tokenizer
        tokenizer = Tokenizer.from_file(str(Path(FOLDER, text)))
    given = [int(each) for each in args.ids.split(",")] if args.ids else list(args.prompt.encode())
    prompt = tokenizer.encode(args.prompt).ids if tokenizer and not args.ids else given
    keep = logits.append if args.save else lambda rows: None
    said = prompt + (tokens := list(ranks.generate(prompt, args.tokens, args.temperature, args.seed, keep)))
    if group.rank == 0:
        print(tokenizer.decode(said) if tokenizer else bytes(said).decode(errors="replace") if text else said, flush=True)
        first, (inside, between) = sum(ranks.times[0]), np.median(ranks.times[1:] or ranks.times, 0)
        meets = sum(len(segment["meets"]) for segment in ranks.chain["segments"])
        speed = f"{1 / (inside + between):.1f} tokens a second: {1e3 * inside:.2f} ms in segments, {1e3 * between:.2f} ms in collectives"
        say(f"{group.size} ranks, {meets} collectives a token; {1e3 * first:.1f} ms for the prompt, then {speed}")
        if args.save:
            np.save(f"{args.save}.npy", np.concatenate(logits))
            facts = {"prompt": prompt, "tokens": tokens, "seconds": ranks.times, "collectives": meets}
            Path(f"{args.save}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Runs the ranks of a folder, one in each process that torchrun starts.")
    parser.add_argument("--prompt", default="", help="the text to continue")
    parser.add_argument("--ids", help="tokens to continue, 1,2,3")
    parser.add_argument("--tokens", type=int, default=48, help="how many to say")
    parser.add_argument("--temperature", type=float, default=0.0, help="sample with it; 0, the default, takes the best")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="of a segment; by default the cores are shared out")
    parser.add_argument("--save", help="write tokens and times to SAVE.json, the logits to SAVE.npy")
    args, group = parser.parse_args(), None
    try:
        group = Group(args.device)
        group.watch()
        run(args, group)
        group.exchange("done")
        group.tell("done")
        os._exit(0)  # Threads of torch may abort a process that is taken apart.
    except Exception as error:
        time.sleep(0 if isinstance(error, Refused) else 3)  # A collective fails where a rank died: those who watch know which.
        words = f"rank {os.environ.get('RANK', 0)}: {error}"
        say(words)
        group and group.tell(words)
        os._exit(2)
