"""The passes of README.md in this folder, in Triton.

A program holds one node and walks over its edges, BE at a time, with all values of BH heads in registers: tiles are
[BE, BH, BD], where BH and BD are powers of two and what exceeds H heads or D values is masked. The edges of a node
that has more than `split` are cut into pieces, each with a program of its own; `merge` and `add_pieces` put them
together in their order. Nothing is added to memory by two programs, so the same inputs give the same bits.

Pointers are to contiguous tensors. `pieces` is [P, 2]: the node (-1: none) and the first edge of each piece; the
programs 0 to P - 1 take the pieces, the others a node each. Numbers are computed in WIDE; a log-sum-exp is float64.
"""

# Triton reads types from the arguments: annotations here mark what is fixed when a kernel is compiled.

from functools import partial

import triton
import triton.language as tl

from graphattn.ops.gpu_tiles import (
    cells_of,
    finish,
    kept_by,
    next_edges,
    pieces_of,
    put,
    rows_of,
    shared_cell,
    work,
    work_of,
)

# No variant for a number of nodes that happens to be 1, or a multiple of 16.
_compiled_once = partial(triton.jit, do_not_specialize=["num_pieces", "num_nodes", "split", "run"])

GIVEN = tl.constexpr(0)  # as in fused.py
ADDITIVE = tl.constexpr(1)
ADDITIVE_V2 = tl.constexpr(2)
DOT_PRODUCT = tl.constexpr(3)


@_compiled_once
def forward(
    values, left, right, att, edge, ptr, edges, others, pieces, seed,
    out, lse, weights, part_out, part_top, part_sum,
    num_pieces, split,
    H: tl.constexpr, D: tl.constexpr, VALUE_HEADS: tl.constexpr,
    BE: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr,
    SCORE: tl.constexpr, CONSTANT: tl.constexpr,
    DROP: tl.constexpr, THRESHOLD: tl.constexpr, SCALE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """out = sum of w_e v_e and lse, by online softmax; of a piece, what `merge` needs. `weights` get the logits."""
    row, begin, end, active = work(ptr, pieces, num_pieces, split)
    h, heads, cell, cells = cells_of(H, D, BH, BD)
    shared = shared_cell(cell, D, VALUE_HEADS, BH, BD)
    if SCORE == ADDITIVE:
        own = tl.load(right + row * H + h, mask=heads & active, other=0).to(WIDE)
    if SCORE == ADDITIVE_V2:
        own = tl.load(right + row * H * D + cell, mask=cells & active, other=0).to(WIDE)
        a = tl.load(att + cell, mask=cells, other=0).to(WIDE)
    if SCORE == DOT_PRODUCT:
        own = tl.load(right + row * H * D + cell, mask=cells & active, other=0).to(WIDE)
    top = tl.full([BH], float("-inf"), WIDE)
    total = tl.zeros([BH], WIDE)
    acc = tl.zeros([BH, BD], WIDE)
    for k in range(begin, end, BE):
        live, e, j = next_edges(edges, others, k, end, BE)
        tile = live[:, None, None] & cells[None, :, :]
        pair = live[:, None] & heads[None, :]
        v = rows_of(values, j, VALUE_HEADS * D, shared, tile, WIDE)
        if SCORE == GIVEN:
            z = tl.load(edge + e[:, None] * H + h[None, :], mask=pair, other=0).to(WIDE)
        if SCORE == ADDITIVE:
            y = tl.load(left + j[:, None] * H + h[None, :], mask=pair, other=0).to(WIDE) + own[None, :]
            if edge is not None:
                y += tl.load(edge + e[:, None] * H + h[None, :], mask=pair, other=0).to(WIDE)
            z = tl.where(y > 0, y, y * CONSTANT)
        if SCORE == ADDITIVE_V2:
            y = v + own[None, :, :]
            if edge is not None:
                y += rows_of(edge, e, H * D, cell, tile, WIDE)
            z = tl.sum(tl.where(y > 0, y, y * CONSTANT) * a[None, :, :], 2)
        if SCORE == DOT_PRODUCT:
            key = rows_of(left, j, VALUE_HEADS * D, shared, tile, WIDE)
            if edge is not None:
                embedding = rows_of(edge, e, H * D, cell, tile, WIDE)
                key += embedding
                v += embedding
            z = tl.sum(key * own[None, :, :], 2) * CONSTANT
        if weights is not None:
            tl.store(weights + e[:, None] * H + h[None, :], z, mask=pair)
        z = tl.where(pair, z, float("-inf"))
        higher = tl.maximum(top, tl.max(z, 0))
        finite = tl.where(higher == float("-inf"), 0.0, higher)
        shrink = tl.exp(top - finite)
        w = tl.exp(z - finite[None, :])
        total = total * shrink + tl.sum(w, 0)
        if DROP:
            w = tl.where(kept_by(e, h, seed, THRESHOLD), w * SCALE, 0.0)
        acc = acc * shrink[:, None] + tl.sum(w[:, :, None] * v, 0)
        top = higher
    if tl.program_id(0) < num_pieces:
        piece = tl.program_id(0).to(tl.int64)
        tl.store(part_out + piece * H * D + cell, acc, mask=cells & active)
        tl.store(part_top + piece * H + h, top, mask=heads & active)
        tl.store(part_sum + piece * H + h, total, mask=heads & active)
    else:
        finish(out, lse, row, h, heads & active, cell, cells & active, top, total, acc, H, D)


@_compiled_once
def merge(
    ptr, pieces, out, lse, part_out, part_top, part_sum, split,
    H: tl.constexpr, D: tl.constexpr, BP: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """out and lse of a node from its pieces; only the first piece's program works."""
    row, first, last = pieces_of(ptr, pieces, split)
    active = last > first
    h, heads, cell, cells = cells_of(H, D, BH, BD)
    top = tl.full([BH], float("-inf"), WIDE)
    total = tl.zeros([BH], WIDE)
    acc = tl.zeros([BH, BD], WIDE)
    for k in range(first, last, BP):
        piece = k + tl.arange(0, BP)
        live = piece < last
        pair = live[:, None] & heads[None, :]
        its_top = tl.load(part_top + piece[:, None] * H + h[None, :], mask=pair, other=float("-inf"))
        its_total = tl.load(part_sum + piece[:, None] * H + h[None, :], mask=pair, other=0)
        its_acc = rows_of(part_out, piece, H * D, cell, live[:, None, None] & cells[None, :, :], WIDE)
        higher = tl.maximum(top, tl.max(its_top, 0))
        finite = tl.where(higher == float("-inf"), 0.0, higher)
        shrink = tl.exp(top - finite)
        share = tl.exp(its_top - finite[None, :])
        total = total * shrink + tl.sum(its_total * share, 0)
        acc = acc * shrink[:, None] + tl.sum(its_acc * share[:, :, None], 0)
        top = higher
    finish(out, lse, row, h, heads & active, cell, cells & active, top, total, acc, H, D)


@_compiled_once
def weigh(
    weights, lse, ptr, edges, pieces, seed, num_pieces, split,
    H: tl.constexpr, BE: tl.constexpr, BH: tl.constexpr,
    DROP: tl.constexpr, THRESHOLD: tl.constexpr, SCALE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Turns the logits that `forward` left in `weights` into weights."""
    row, begin, end, active = work(ptr, pieces, num_pieces, split)
    h = tl.program_id(1) * BH + tl.arange(0, BH)
    heads = h < H
    logsumexp = tl.load(lse + row * H + h, mask=heads & active, other=0)
    for k in range(begin, end, BE):
        i = k + tl.arange(0, BE)
        live = i < end
        e = tl.load(edges + i, mask=live, other=0)
        at = weights + e[:, None] * H + h[None, :]
        pair = live[:, None] & heads[None, :]
        z = tl.load(at, mask=pair, other=0)
        w = tl.exp((z.to(tl.float64) - logsumexp[None, :]).to(WIDE))
        if DROP:
            w = tl.where(kept_by(e, h, seed, THRESHOLD), w * SCALE, 0.0)
        tl.store(at, w, mask=pair)


@_compiled_once
def row_sums(
    out, grad_out, weights, grad_weights, ptr, edges, sums,
    H: tl.constexpr, D: tl.constexpr, BE: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """R_i = g_i . out_i + sum over e of w_e u_e, where u_e is the gradient of a returned weight."""
    row = tl.program_id(0).to(tl.int64)
    h, heads, cell, cells = cells_of(H, D, BH, BD)
    o = tl.load(out + row * H * D + cell, mask=cells, other=0).to(WIDE)
    g = tl.load(grad_out + row * H * D + cell, mask=cells, other=0).to(WIDE)
    total = tl.sum(o * g, 1)
    if weights is not None:
        end = tl.load(ptr + row + 1)
        for k in range(tl.load(ptr + row), end, BE):
            i = k + tl.arange(0, BE)
            live = i < end
            e = tl.load(edges + i, mask=live, other=0)
            pair = live[:, None] & heads[None, :]
            w = tl.load(weights + e[:, None] * H + h[None, :], mask=pair, other=0)
            u = tl.load(grad_weights + e[:, None] * H + h[None, :], mask=pair, other=0)
            total += tl.sum(w * u, 0)
    tl.store(sums + row * H + h, total, mask=heads)


@_compiled_once
def backward_senders(
    values, left, right, att, edge, ptr, edges, others, pieces, seed,
    lse, sums, grad_out, grad_weights,
    grad_values, grad_left, grad_edge, logit_grads, part_values, part_left,
    num_pieces, split,
    H: tl.constexpr, D: tl.constexpr, VALUE_HEADS: tl.constexpr,
    BE: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr,
    SCORE: tl.constexpr, CONSTANT: tl.constexpr,
    DROP: tl.constexpr, THRESHOLD: tl.constexpr, SCALE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """All gradients but those of receivers and of att; for these, dz_e (in `additive` t_e) is left in `logit_grads`.

    Of a piece, what `add_pieces` needs goes to `part_values` and `part_left`.
    """
    row, begin, end, active = work(ptr, pieces, num_pieces, split)
    h, heads, cell, cells = cells_of(H, D, BH, BD)
    shared = shared_cell(cell, D, VALUE_HEADS, BH, BD)
    own = tl.load(values + row * VALUE_HEADS * D + shared, mask=cells & active, other=0).to(WIDE)
    acc = tl.zeros([BH, BD], WIDE)
    if SCORE == ADDITIVE:
        score = tl.load(left + row * H + h, mask=heads & active, other=0).to(WIDE)
        acc_left = tl.zeros([BH], WIDE)
    if SCORE == ADDITIVE_V2:
        a = tl.load(att + cell, mask=cells, other=0).to(WIDE)
    if SCORE == DOT_PRODUCT:
        key = tl.load(left + row * VALUE_HEADS * D + shared, mask=cells & active, other=0).to(WIDE)
        acc_left = tl.zeros([BH, BD], WIDE)
    for k in range(begin, end, BE):
        live, e, i = next_edges(edges, others, k, end, BE)
        tile = live[:, None, None] & cells[None, :, :]
        pair = live[:, None] & heads[None, :]
        of_pair = e[:, None] * H + h[None, :]
        g = rows_of(grad_out, i, H * D, cell, tile, WIDE)
        value = own[None, :, :]
        if SCORE == GIVEN:
            z = tl.load(edge + of_pair, mask=pair, other=0).to(WIDE)
        if SCORE == ADDITIVE:
            y = tl.load(right + i[:, None] * H + h[None, :], mask=pair, other=0).to(WIDE) + score[None, :]
            if edge is not None:
                y += tl.load(edge + of_pair, mask=pair, other=0).to(WIDE)
            z = tl.where(y > 0, y, y * CONSTANT)
        if SCORE == ADDITIVE_V2:
            y = rows_of(right, i, H * D, cell, tile, WIDE) + own[None, :, :]
            if edge is not None:
                y += rows_of(edge, e, H * D, cell, tile, WIDE)
            z = tl.sum(tl.where(y > 0, y, y * CONSTANT) * a[None, :, :], 2)
        if SCORE == DOT_PRODUCT:
            query = rows_of(right, i, H * D, cell, tile, WIDE)
            keys = key[None, :, :]
            if edge is not None:
                embedding = rows_of(edge, e, H * D, cell, tile, WIDE)
                keys = keys + embedding
                value = value + embedding
            z = tl.sum(query * keys, 2) * CONSTANT
        logsumexp = tl.load(lse + i[:, None] * H + h[None, :], mask=pair, other=0)
        w = tl.where(pair, tl.exp((z.to(tl.float64) - logsumexp).to(WIDE)), 0.0)
        dp = tl.sum(g * value, 2)
        if grad_weights is not None:
            dp += tl.load(grad_weights + of_pair, mask=pair, other=0)
        r = tl.load(sums + i[:, None] * H + h[None, :], mask=pair, other=0)
        if DROP:
            kept = kept_by(e, h, seed, THRESHOLD)
            dz = w * (tl.where(kept, dp * SCALE, 0.0) - r)
            w = tl.where(kept, w * SCALE, 0.0)
        else:
            dz = w * (dp - r)
        acc += tl.sum(w[:, :, None] * g, 0)
        if SCORE == GIVEN and grad_edge is not None:
            tl.store(grad_edge + of_pair, dz, mask=pair)
        if SCORE == ADDITIVE:
            dz = tl.where(y > 0, dz, dz * CONSTANT)
            acc_left += tl.sum(dz, 0)
            if grad_edge is not None:
                tl.store(grad_edge + of_pair, dz, mask=pair)
        if SCORE == ADDITIVE_V2:
            t = tl.where(y > 0, dz[:, :, None], dz[:, :, None] * CONSTANT) * a[None, :, :]
            acc += tl.sum(t, 0)
            if grad_edge is not None:
                tl.store(grad_edge + e[:, None, None] * (H * D) + cell[None, :, :], t, mask=tile)
        if SCORE == DOT_PRODUCT:
            t = query * (dz * CONSTANT)[:, :, None]
            acc_left += tl.sum(t, 0)
            if grad_edge is not None:
                t += w[:, :, None] * g
                tl.store(grad_edge + e[:, None, None] * (H * D) + cell[None, :, :], t, mask=tile)
        if logit_grads is not None:
            tl.store(logit_grads + of_pair, dz, mask=pair)
    task = tl.program_id(0).to(tl.int64)
    if grad_values is not None:
        put(grad_values, part_values, task, num_pieces, row, active, H * D, cell, cells, acc)
    if grad_left is not None:
        if SCORE == ADDITIVE:
            put(grad_left, part_left, task, num_pieces, row, active, H, h, heads, acc_left)
        else:
            put(grad_left, part_left, task, num_pieces, row, active, H * D, cell, cells, acc_left)


@_compiled_once
def backward_receivers(
    left, right, att, edge, ptr, edges, others, pieces, logit_grads, grad_right, grad_att, part_right,
    num_nodes, num_pieces, split, run,
    H: tl.constexpr, D: tl.constexpr, LEFT_HEADS: tl.constexpr,
    BE: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr,
    SCORE: tl.constexpr, CONSTANT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The receivers' gradients, and a share of att's from each program. `left` holds the rows that made the logits.

    A program that has no piece takes `run` nodes, so that the shares, `grad_att` [programs, H, D], are few.
    """
    program = tl.program_id(0).to(tl.int64)
    h, heads, cell, cells = cells_of(H, D, BH, BD)
    shared = shared_cell(cell, D, LEFT_HEADS, BH, BD)
    if SCORE == ADDITIVE_V2:
        a = tl.load(att + cell, mask=cells, other=0).to(WIDE)
        acc_att = tl.zeros([BH, BD], WIDE)
    if program < num_pieces:
        first = program
        last = program + 1
    else:
        first = num_pieces + (program - num_pieces) * run
        last = tl.minimum(first + run, num_pieces + num_nodes)
    for task in range(first, last):
        row, begin, end, active = work_of(task, ptr, pieces, num_pieces, split)
        if SCORE == ADDITIVE:
            acc_scores = tl.zeros([BH], WIDE)
        else:
            acc = tl.zeros([BH, BD], WIDE)
        if SCORE == ADDITIVE_V2:
            own = tl.load(right + row * H * D + cell, mask=cells & active, other=0).to(WIDE)
        for k in range(begin, end, BE):
            live, e, j = next_edges(edges, others, k, end, BE)
            pair = live[:, None] & heads[None, :]
            dz = tl.load(logit_grads + e[:, None] * H + h[None, :], mask=pair, other=0)
            if SCORE == ADDITIVE:
                acc_scores += tl.sum(dz, 0)
            else:
                tile = live[:, None, None] & cells[None, :, :]
                y = rows_of(left, j, LEFT_HEADS * D, shared, tile, WIDE)
                if edge is not None:
                    y += rows_of(edge, e, H * D, cell, tile, WIDE)
                if SCORE == ADDITIVE_V2:
                    y += own[None, :, :]
                    t = tl.where(y > 0, dz[:, :, None], dz[:, :, None] * CONSTANT)
                    acc += tl.sum(t, 0)
                    acc_att += tl.sum(t * y, 0)
                else:
                    acc += tl.sum(y * (dz * CONSTANT)[:, :, None], 0)
        if grad_right is not None:
            if SCORE == ADDITIVE:
                put(grad_right, part_right, task, num_pieces, row, active, H, h, heads, acc_scores)
            else:
                if SCORE == ADDITIVE_V2:
                    acc *= a
                put(grad_right, part_right, task, num_pieces, row, active, H * D, cell, cells, acc)
    if grad_att is not None:
        tl.store(grad_att + program * H * D + cell, acc_att, mask=cells)


@_compiled_once
def add_pieces(ptr, pieces, parts, whole, split, W: tl.constexpr, BP: tl.constexpr, BW: tl.constexpr):
    """The rows [P, W] that the pieces of a node left, added into the node's own of whole [N, W]."""
    row, first, last = pieces_of(ptr, pieces, split)
    at = tl.program_id(1) * BW + tl.arange(0, BW)
    acc = tl.zeros([BW], parts.dtype.element_ty)
    for k in range(first, last, BP):
        piece = k + tl.arange(0, BP)
        there = (piece < last)[:, None] & (at < W)[None, :]
        acc += tl.sum(tl.load(parts + piece[:, None] * W + at[None, :], mask=there, other=0), 0)
    tl.store(whole + row * W + at, acc, mask=(at < W) & (last > first))


@_compiled_once
def weighted_sum(
    weights, rows, ptr, edges, others, pieces, seed, out, parts, num_pieces, split,
    W: tl.constexpr, D: tl.constexpr, BE: tl.constexpr, BD: tl.constexpr,
    DROP: tl.constexpr, THRESHOLD: tl.constexpr, SCALE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """out_i = sum of weight_e * row_j; no softmax. Rows of W numbers are heads of D, each with its own mask."""
    row, begin, end, active = work(ptr, pieces, num_pieces, split)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    acc = tl.zeros([BD], WIDE)
    for k in range(begin, end, BE):
        live, e, j = next_edges(edges, others, k, end, BE)
        w = tl.load(weights + e, mask=live, other=0).to(WIDE)
        x = tl.load(rows + j[:, None] * W + d[None, :], mask=live[:, None] & (d < W)[None, :], other=0).to(WIDE)
        if DROP:
            heads = d // D if W > D else tl.zeros([1], tl.int32)
            x = tl.where(kept_by(e, heads, seed, THRESHOLD), x * SCALE, 0.0)
        acc += tl.sum(w[:, None] * x, 0)
    task = tl.program_id(0).to(tl.int64)
    put(out, parts, task, num_pieces, row, active, W, d, d < W, acc)
