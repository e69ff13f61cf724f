"""The C++ file of lowered operations: a function for each loop, and one that calls them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from engine.compilation.native.builder import COMBINED
from engine.compilation.native.grouping import LoopNest, Step, buffers_of, merged
from engine.compilation.native.loop_body import CLAUSES, LoopBody, neutral
from engine.compilation.native.memory import ScratchMemory
from engine.compilation.native.places import (
    TYPES,
    AxisReduction,
    Buffer,
    FunctionCall,
    StridedPlace,
)
from engine.compilation.native.sharing import Parts, parts_of
from engine.compilation.native.text import Names, entry, nest


def source_of(
    steps: Sequence[Step], needed: set[Buffer], memory: ScratchMemory, num_threads: int
) -> str:
    """The file.

    Args:
        steps: What it does, in order.
        needed: The buffers that are in memory.
        memory: Where in scratch memory.
        num_threads: So many may share a loop.
    """
    names = Names(memory)
    written = [_lines(step, needed, names, num_threads) for step in steps]
    functions = [
        _function(number, step, needed, names, lines, is_shared=parts is not None)
        for number, (step, (lines, parts)) in enumerate(zip(steps, written, strict=True))
    ]
    shares = any(parts is not None for _, parts in written)
    calls = "\n".join(
        f"  {_called(number, parts, num_threads)}" for number, (_, parts) in enumerate(written)
    )
    return "\n".join(
        (
            Path(__file__).with_name("functions.cpp").read_text(),
            *_declarations(steps),
            *((_SHARE,) if shares else ()),
            *functions,
            _SCAN.format(calls=calls, num_bytes=max(memory.num_bytes, 1)),
        )
    )


_SHARE = """
// Of `product.cpp`.
extern "C" void tianji_share(int64_t parts, int64_t threads, void (*work)(const void*, int64_t),
                             const void* of);

// A loop, in parts of this length, by so many threads.
template <void (*LOOP)(void* const*, char*, int64_t, int64_t), int64_t SIZE, int64_t LENGTH>
static void in_parts(void* const* data, char* scratch, int64_t threads) {
  struct Call {
    void* const* data;
    char* scratch;
  };
  const Call call = {data, scratch};
  tianji_share((SIZE + LENGTH - 1) / LENGTH, threads, [](const void* of, int64_t i) {
    const Call* const call = (const Call*)of;
    LOOP(call->data, call->scratch, i * LENGTH, smaller((i + 1) * LENGTH, SIZE));
  }, &call);
}
"""


def _called(number: int, parts: Parts | None, num_threads: int) -> str:
    if parts is None:
        return f"bad |= step_{number}(data, scratch);"
    sizes = f"{parts.size}, {parts.length}"
    return f"in_parts<step_{number}, {sizes}>(data, scratch, {num_threads});"


_SCAN = """
alignas(64) static thread_local char memory[{num_bytes}];

static bool once(void* const* data, char* scratch) {{
  bool bad = false;
{calls}
  return bad;
}}

// So often; after each time, the arguments move on. 1: an index was out of bounds, 0: all is well.
extern "C" int32_t tianji_scan(int64_t count, int64_t num_arguments, void** data,
                               const int64_t* bytes_per_call) {{
  char* const scratch = memory;
  for (int64_t t = 0; t < count; t++) {{
    if (once(data, scratch)) return 1;
    for (int64_t i = 0; i < num_arguments; i++) data[i] = (char*)data[i] + bytes_per_call[i];
  }}
  return 0;
}}
"""


def _declarations(steps: Sequence[Step]) -> Iterator[str]:
    called = {step.function: len(step.reads) for step in steps if isinstance(step, FunctionCall)}
    for function, number in sorted(called.items()):
        tensors = ", ".join(["const float*"] * number)
        yield f'extern "C" void {function}(float*, {tensors}, const int64_t*);'


def _lines(
    step: Step, needed: set[Buffer], names: Names, num_threads: int
) -> tuple[list[str], Parts | None]:
    """What a step does; and the parts in which threads share it, if they do."""
    match step:
        case LoopNest():
            return LoopBody(names, needed).written(step, num_threads)
        case AxisReduction():
            return _reduction(step, names, num_threads)
        case FunctionCall():
            return _call(step, names), None


def _function(
    number: int,
    step: Step,
    needed: set[Buffer],
    names: Names,
    lines: Sequence[str],
    *,
    is_shared: bool,
) -> str:
    buffers = dict.fromkeys(b for b in buffers_of(step) if b in needed or b.values)
    body = "\n".join(f"  {line}" for line in (*map(names.pointer, buffers), *lines))
    head = f"step_{number}(void* const* data, char* scratch"
    if is_shared:
        kind, head = "void", f"{head}, int64_t begin, int64_t end)"
    else:
        kind, head, body = "bool", f"{head})", f"  bool bad = false;\n{body}\n  return bad;"
    return f"__attribute__((noinline)) static {kind} {head} {{\n{body}\n}}"


def _call(step: FunctionCall, names: Names) -> list[str]:
    def pointer(place: StridedPlace | None) -> str:
        return "nullptr" if place is None else f"{names.of(place.buffer)} + {place.offset}"

    numbers = ", ".join(map(str, step.numbers))
    tensors = ", ".join(map(pointer, (step.to, *step.reads)))
    return [
        f"static const int64_t numbers[] = {{{numbers}}};",
        f"{step.function}({tensors}, numbers);",
    ]


def _reduction(
    step: AxisReduction, names: Names, num_threads: int
) -> tuple[list[str], Parts | None]:
    sizes, (far, near) = merged(step.source.sizes, [step.source.strides, step.to.strides])
    source = replace(step.source, sizes=sizes, strides=far)
    to = replace(step.to, sizes=sizes, strides=near)
    kept = [axis for axis in range(len(sizes)) if near[axis]]
    summed = [axis for axis in range(len(sizes)) if not near[axis]]
    dtype = step.to.dtype
    value, out = entry(source, names), entry(to, names)
    start, combined = neutral(step.kind, dtype), COMBINED[step.kind]
    parts = parts_of(sizes, kept, step.source.num_entries, num_threads)
    cut = None if parts is None else parts.axis
    if not summed or summed[-1] == len(sizes) - 1:
        inner = nest(
            summed, sizes, [f"sum = {combined.format('sum', value)};"], _simd(step.kind, "sum")
        )
        body = [f"{TYPES[dtype]} sum = {start};", *inner, f"{out} = sum;"]
        return nest(kept, sizes, body, cut=cut), parts
    first = nest(kept, sizes, [f"{out} = {start};"], "#pragma omp simd", cut)
    body = [f"{out} = {combined.format(out, value)};"]
    return [*first, *nest([*summed, *kept], sizes, body, "#pragma omp simd", cut)], parts


def _simd(kind: str, *sums: str) -> str:
    clause = f" reduction({CLAUSES[kind]}:{', '.join(sums)})" if kind in CLAUSES else None
    return "" if clause is None else f"#pragma omp simd{clause}"
