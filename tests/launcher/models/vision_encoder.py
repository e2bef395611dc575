"""A stand-in for the vision encoder, which nobody calls."""


class TritonPythonModel:
    def execute(self, requests):
        raise NotImplementedError
