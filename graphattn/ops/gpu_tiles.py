"""What the Triton kernels share: which node and edges a program has, tiles of rows, the mask of dropout."""

import triton
import triton.language as tl


@triton.jit
def work(ptr, pieces, num_pieces, split):
    """This program's node, the range of its edges in their order, and whether it has anything to do."""
    return work_of(tl.program_id(0).to(tl.int64), ptr, pieces, num_pieces, split)


@triton.jit
def work_of(task, ptr, pieces, num_pieces, split):
    """A node that is cut into pieces has no edges of its own; a piece that is not needed has no node."""
    if task < num_pieces:
        row = tl.load(pieces + 2 * task)
        begin = tl.load(pieces + 2 * task + 1)
        active = row >= 0
        row = tl.maximum(row, 0)
        end = tl.where(active, tl.minimum(begin + split, tl.load(ptr + row + 1)), begin)
    else:
        row = task - num_pieces
        begin = tl.load(ptr + row)
        end = tl.load(ptr + row + 1)
        active = (num_pieces == 0) | (end - begin <= split)
        end = tl.where(active, end, begin)
    return row, begin, end, active


@triton.jit
def pieces_of(ptr, pieces, split):
    """For the program of a node's first piece that node and its pieces from `first` to before `last`; else none."""
    first = tl.program_id(0).to(tl.int64)
    row = tl.load(pieces + 2 * first)
    before = tl.load(pieces + 2 * tl.maximum(first - 1, 0))
    works = (row >= 0) & ((first == 0) | (before != row))
    row = tl.maximum(row, 0)
    degree = tl.load(ptr + row + 1) - tl.load(ptr + row)
    return row, first, tl.where(works, first + (degree + split - 1) // split, first)


@triton.jit
def cells_of(H: tl.constexpr, D: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr):
    """The heads of this program, and where their values are in a row [H, D], each with what of it exists."""
    h = tl.program_id(1) * BH + tl.arange(0, BH)
    d = tl.arange(0, BD)
    return h, h < H, h[:, None] * D + d[None, :], (h < H)[:, None] & (d < D)[None, :]


@triton.jit
def shared_cell(cell, D: tl.constexpr, HEADS: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr):
    """Where the values are in a row with as many heads, or with one that all share."""
    if HEADS == 1:
        cell = tl.zeros([BH, 1], tl.int32) + tl.arange(0, BD)[None, :]
    return cell


@triton.jit
def next_edges(edges, others, k, end, BE: tl.constexpr):
    """Of the next BE edges which exist, their positions in the caller's list, and the nodes at their other ends."""
    i = k + tl.arange(0, BE)
    live = i < end
    return live, tl.load(edges + i, mask=live, other=0), tl.load(others + i, mask=live, other=0)


@triton.jit
def rows_of(base, index, width: tl.constexpr, cell, tile, WIDE: tl.constexpr):
    return tl.load(base + index[:, None, None] * width + cell[None, :, :], mask=tile, other=0).to(WIDE)


@triton.jit
def put(whole, parts, task, num_pieces, row, active, width: tl.constexpr, at, mask, value):
    """A node's numbers into its row, a piece's into its own."""
    if task < num_pieces:
        tl.store(parts + task * width + at, value, mask=mask)
    else:
        tl.store(whole + row * width + at, value, mask=mask & active)


@triton.jit
def finish(out, lse, row, h, heads, cell, cells, top, total, acc, H: tl.constexpr, D: tl.constexpr):
    """A node without edges, or with nothing but logits of -inf, gets zeros, and weights of zero in backward."""
    none = total == 0
    tl.store(out + row * H * D + cell, acc / tl.where(none, 1.0, total)[:, None], mask=cells)
    logsumexp = top.to(tl.float64) + tl.log(tl.where(none, 1.0, total).to(tl.float64))
    tl.store(lse + row * H + h, tl.where(none, float("inf"), logsumexp), mask=heads)


@triton.jit
def kept_by(e, h, seed, THRESHOLD: tl.constexpr):
    """Which of [edges, heads] dropout keeps: the hash of dropout.py."""
    s = tl.load(seed)
    word = _mix(e.to(tl.uint32) ^ s.to(tl.uint32))
    head = h.to(tl.uint32) * 0x9E3779B9
    word = _mix((word[:, None] + head[None, :] + (e >> 32).to(tl.uint32)[:, None]) ^ (s >> 32).to(tl.uint32))
    return word.to(tl.int64) >= THRESHOLD


@triton.jit
def _mix(word):
    word = word ^ (word >> 16)
    word = word * 0x7FEB352D
    word = word ^ (word >> 15)
    word = word * 0x846CA68B
    return word ^ (word >> 16)
