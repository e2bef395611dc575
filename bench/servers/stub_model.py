"""The `model.py` of a stub build: the Triton adapter, which lies beside it as `adapter.py`, on a paced engine."""

from adapter import TritonPythonModel as Adapter  # type: ignore[import-not-found]

from bench.servers.paced_engine import open_paced_engine


class TritonPythonModel(Adapter):  # type: ignore[misc]
    open_engine = staticmethod(open_paced_engine)
