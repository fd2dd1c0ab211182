"""torch.mean of a contiguous fp32 vector, bit for bit (CPU): the order of additions behind nested_offset.

Eight lanes: lane l sums x[l], x[8+l], x[16+l], ... The rows (of eight) are dealt to four accumulators in turn and each
accumulator is summed in a cascade of four levels; the left-over rows go to accumulator 0, the four are added in order,
then the left-over items (n % 8) are summed first and lanes 0..7 added to them in order. Every addition is fp32.
"""

import numpy as np

LANES, WAYS, LEVELS = 8, 4, 4


def cascade(rows):
    """Sum over the first axis: level 0 takes 2^p rows, then is emptied into level 1, and so on."""
    size = len(rows)
    power = max(4, (size - 1).bit_length() // LEVELS) if size > 1 else 4
    step = 1 << power
    level = np.zeros((LEVELS,) + rows.shape[1:], np.float32)
    i = 0
    while i + step <= size:
        for _ in range(step):
            level[0] += rows[i]
            i += 1
        for j in range(1, LEVELS):
            level[j] += level[j - 1]
            level[j - 1] = 0
            if i & ((step - 1) << (j * power)):
                break
    for k in range(i, size):
        level[0] += rows[k]
    for j in range(1, LEVELS):
        level[0] += level[j]
    return level[0]


def mean(x):
    x = np.asarray(x, np.float32)
    n, rows = len(x), len(x) // LANES
    used = rows // WAYS * WAYS
    lanes = x[: rows * LANES].reshape(rows, LANES)
    way = cascade(lanes[:used].reshape(-1, WAYS, LANES))
    for r in range(used, rows):
        way[0] += lanes[r]
    for k in range(1, WAYS):
        way[0] += way[k]
    total = np.float32(0)
    for v in x[rows * LANES:]:
        total += v
    for v in way[0]:
        total += v
    return total / np.float32(n)
