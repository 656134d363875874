"""llama.cpp, for bench/peer.py: taken from PyPI and built once into ~/.cache/sigmoe/peer, never in CI.

The source distribution of llama-cpp-python carries llama.cpp whole, tools included. Built natively with
gcc: its AMX kernels for quantised matrices, which gcc 12 breaks (it drops the stores that fill the tiles'
configuration, because _tile_loadconfig names only 8 of its 64 bytes as read: SIGILL at the first prompt),
are kept by a barrier in front of that one call. So the peer is measured at its best, not as it is broken.
"""
import glob
import os
import subprocess
import sys
import tarfile

PACKAGE = "llama-cpp-python==0.3.36"
PYTHON_PACKAGES = ["gguf==0.19.0", "numpy==2.4.6"]
TOOLS = ["llama-bench", "llama-batched-bench", "ggml-rpc-server", "llama-server"]
BROKEN = "    _tile_loadconfig(&tc);"
MENDED = '    asm volatile("" :: "r"(&tc) : "memory"); _tile_loadconfig(&tc);'
OPTIONS = ["-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DGGML_NATIVE=ON", "-DGGML_RPC=ON",
           "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF",
           "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_OPENSSL=OFF", "-DCMAKE_CXX_FLAGS=-w",
           "-DCMAKE_C_FLAGS=-w"]


class Peer:
    """Where everything lies. Nothing is there before build()."""

    def __init__(self, cache):
        self.cache = os.path.expanduser(cache)
        self.python = os.path.join(self.cache, "venv", "bin", "python")
        self.bin = os.path.join(self.cache, "build", "bin")
        self.about = f"llama.cpp of {PACKAGE} (PyPI), native, gcc, AMX's tile configuration mended"

    def tool(self, name):
        return os.path.join(self.bin, name)

    def has(self, name):
        return os.access(self.tool(name), os.X_OK)

    def _run(self, *command):
        print("  " + " ".join(command), file=sys.stderr)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            sys.exit(done.stdout.decode(errors="replace")[-2000:] +
                     f"\npeer: {' '.join(command)} failed; the peer cannot be built here")

    def _source(self):
        found = glob.glob(os.path.join(self.cache, "llama_cpp_python-*", "vendor", "llama.cpp"))
        if found:
            return found[0]
        self._run(self.python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary",
                  PACKAGE.split("=")[0], PACKAGE, "-d", os.path.join(self.cache, "dl"))
        archive, = glob.glob(os.path.join(self.cache, "dl", "llama_cpp_python-*.tar.gz"))
        with tarfile.open(archive) as tar:
            tar.extractall(self.cache, filter="data")
        return self._source()

    @staticmethod
    def _mend(source):
        path = os.path.join(source, "ggml", "src", "ggml-cpu", "amx", "mmq.cpp")
        with open(path, encoding="utf-8") as f:
            text = f.read()
        if BROKEN in text:
            with open(path, "w", encoding="utf-8") as f:
                f.write(text.replace(BROKEN, MENDED))

    def build(self, jobs):
        """Makes what is missing; minutes to an hour the first time."""
        os.makedirs(self.cache, exist_ok=True)
        if not os.path.exists(self.python):
            self._run(sys.executable, "-m", "venv", os.path.join(self.cache, "venv"))
            self._run(self.python, "-m", "pip", "install", "--quiet", *PYTHON_PACKAGES)
        if all(map(self.has, TOOLS)):
            return
        source, build = self._source(), os.path.join(self.cache, "build")
        self._mend(source)
        if not os.path.exists(os.path.join(build, "CMakeCache.txt")):
            self._run("cmake", "-S", source, "-B", build, *OPTIONS)
        for tool in TOOLS:  # one by one, so that what cannot be built leaves the others
            if not self.has(tool):
                self._run("nice", "-n", "19", "cmake", "--build", build, "-j", str(jobs), "--target",
                          tool)
