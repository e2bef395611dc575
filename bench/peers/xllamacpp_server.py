"""Runs the server that the wheel xllamacpp holds until it is ended, with `llama-server`'s options."""

import argparse
import importlib
import signal


def main() -> None:
    """Reads the options, starts the server, and waits for a signal."""
    parser = argparse.ArgumentParser()
    for name in ("model", "mmproj", "alias", "host"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("threads", "parallel", "ctx-size", "port"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    xllamacpp = importlib.import_module("xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.mmproj.path, settings.model_alias = options.model, options.mmproj, {options.alias}
    settings.hostnames, settings.port = [options.host], options.port
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = options.threads
    settings.n_parallel, settings.n_ctx = options.parallel, options.ctx_size
    server = xllamacpp.Server(settings)  # it answers from here on, in threads of its own
    signal.pause()
    del server


if __name__ == "__main__":
    main()
