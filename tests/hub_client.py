"""A process that loads and pushes models on request, one JSON line each; ``HF_ENDPOINT`` is read when it starts."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import torch

import cardiac_ct_fm as ccf

WAIT_FACTOR = 0.02
"""The client's waits between retries (23 s for a server error) are shortened; what it does between them is not."""


def logits_digest(model: ccf.CardiacCTModel) -> str:
    """sha256 of all logits for one image."""
    x = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        parts = model(x)
    return hashlib.sha256(b"".join(parts[name].numpy().tobytes() for name in sorted(parts))).hexdigest()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    verb = request.pop("verb")
    if verb == "push":
        model = ccf.from_pretrained(request["folder"], cache_dir=request.get("cache_dir"))
        return {"url": str(model.push_to_hub(request["repo"], token=request["token"]))}
    if verb == "save":
        out = request.pop("out")
        model = ccf.from_pretrained(request.pop("source"), **request)
        copy.deepcopy(model).save_pretrained(out)
        return {"shown": f"{model.weight_files} {vars(model.weight_files)}", "kept": pickle.dumps(model).hex()}
    model = ccf.from_pretrained(request.pop("source"), **request)
    assert model.weight_files is not None
    return {
        "logits": logits_digest(model),
        "heads": list(model.heads),
        "verified": model.weight_files.verified,
        "files": [str(Path(p)) for p in model.weight_files.tensors],
    }


def main() -> None:
    real_sleep = time.sleep
    time.sleep = lambda seconds: real_sleep(seconds * WAIT_FACTOR)
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except ccf.CardiacCTError as error:
            reply = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
