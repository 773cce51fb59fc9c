"""Streaming stores: every element arrives once; where there are none, nothing is copied twice."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
#include <cstdio>
#include <vector>
#include "common/stream_store.h"
int main() {
  using namespace ganops;
  int calls = 0, elsewhere = 0, wrong = 0;
  for (int shift = 0; shift < 20; ++shift) {
    for (int n : {0, 1, 15, 64, 129, 1000}) {
      std::vector<float> memory(n + shift + 1, -1.0f);
      float* out = memory.data() + shift;
      store_results(out, n, true, [&](int64_t at, float* to, int64_t count) {
        ++calls;
        elsewhere += to != out + at;
        for (int64_t i = 0; i < count; ++i) to[i] = float(at + i);
      });
      stream_fence();
      for (int i = 0; i < n; ++i) wrong += out[i] != float(i);
      wrong += out[n] != -1.0f;
    }
  }
  std::printf("%d %d %d", calls, elsewhere, wrong);
}
"""


def run(tmp_path, *flags):
    named = os.environ.get("CXX", "").split()
    compiler = named or [c for c in (shutil.which("g++"), shutil.which("clang++")) if c][:1]
    if not compiler:
        pytest.skip("no C++ compiler: neither CXX nor g++ nor clang++")
    source, program = tmp_path / "store.cpp", tmp_path / "store"
    source.write_text(PROGRAM)
    command = [*compiler, "-std=c++20", "-O1", *flags, f"-I{ROOT / 'csrc'}", source, "-o", program]
    subprocess.run(command, check=True)
    said = subprocess.run([program], capture_output=True, text=True, check=True)
    return [int(n) for n in said.stdout.split()]


def test_every_element_arrives_once_whatever_the_alignment(tmp_path):
    assert run(tmp_path)[2] == 0


def test_without_streaming_stores_results_are_written_in_place(tmp_path):
    assert run(tmp_path, "-U__SSE2__") == [20 * 5, 0, 0]  # one call for each but the empty ones
