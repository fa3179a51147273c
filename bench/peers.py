"""Other libraries that run language models. As a program, `peers.py MODEL PROMPT` is a cold start of onnxruntime-genai to the first
token."""

import sys
import time


def tokens(count):
    """Random token ids. Their values do not change the time of any library."""
    import numpy as np

    return np.random.default_rng(3).integers(300, 600, count).astype(np.int32)


class Genai:
    """onnxruntime-genai."""

    def __init__(self, folder):
        import onnxruntime_genai

        self.library = onnxruntime_genai
        self.model = onnxruntime_genai.Model(onnxruntime_genai.Config(str(folder)))

    def __call__(self, prompt, new):
        """Prefills `prompt` tokens and generates `new` tokens. Returns the milliseconds to the first token, and of each later token."""
        ids = tokens(prompt)[None]
        params = self.library.GeneratorParams(self.model)
        params.set_search_options(max_length=prompt + new, min_length=prompt + new, do_sample=False)
        start = time.perf_counter()
        generator = self.library.Generator(self.model, params)
        generator.append_tokens(ids)
        generator.generate_next_token()
        first = time.perf_counter()
        for _ in range(new - 1):
            generator.generate_next_token()
        end = time.perf_counter()
        return (first - start) * 1e3, (end - first) * 1e3 / max(new - 1, 1)


class Llama:
    """llama.cpp."""

    def __init__(self, path, context, threads):
        import numpy as np
        from llama_cpp import llama_cpp

        self.library, self.numpy = llama_cpp, np
        llama_cpp.llama_backend_init()
        self.quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.quiet, None)
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_batch = context, context
        settings.n_threads = settings.n_threads_batch = threads
        # Layers with a sliding window cache the window only.
        settings.swa_full = False
        self.context = llama_cpp.llama_init_from_model(model, settings)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def decode(self, ids):
        array = (self.library.llama_token * len(ids))(*ids)
        if self.library.llama_decode(self.context, self.library.llama_batch_get_one(array, len(ids))):
            raise RuntimeError("llama.cpp failed to decode")
        logits = self.library.llama_get_logits_ith(self.context, -1)
        return int(self.numpy.ctypeslib.as_array(logits, (self.vocabulary,)).argmax())

    def __call__(self, prompt, new):
        self.library.llama_memory_clear(self.library.llama_get_memory(self.context), True)
        start = time.perf_counter()
        token = self.decode(tokens(prompt).tolist())
        first = time.perf_counter()
        for _ in range(new - 1):
            token = self.decode([token])
        end = time.perf_counter()
        return (first - start) * 1e3, (end - first) * 1e3 / max(new - 1, 1)


if __name__ == "__main__":
    Genai(sys.argv[1])(int(sys.argv[2]), 1)
    print("token", flush=True)
