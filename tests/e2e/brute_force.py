"""The slotted ring by brute force, written from CONTRACT alone and sharing nothing with the C++ code: unbounded integers,
no tables, every request id asked one by one."""

FUNCTIONS = {
    "s1": (lambda i: i**2 + 2 * i + 17, lambda i, j: i**2 + j**2 + 2 * j + 25),
    "s2": (lambda i: i + 2 * i**2 + 17, lambda i, j: i + j + 2 * j**2 + 25),
    "variant 1": (lambda i: i**2 + 2 * i + 199, lambda i, j: i**2 + j**2 + 2 * i * j + 199),
    "variant 2": (lambda i: 5 * i + 21, lambda i, j: i**3 + 2 * i + 15 * j + 17),
    "variant 3": (lambda i: 1427 * i**2 + 2503 * i + 2003, lambda i, j: 1249 * i**2 + 2287 * j**2 + 1663 * j + 2287),
}


def layout(functions, probing, servers, m=512, k=9, server_base=1, virtual_base=1):
    """ring slot → (server, j from 0). `servers` are the pool's slot numbers, from 1."""
    phi = FUNCTIONS[functions][1]
    ring = {}
    for server in servers:
        for j in range(k):
            first = phi(server - 1 + server_base, j + virtual_base) % m
            tries = [first + (step**2 if probing == "quadratic" else step) for step in range(m)]
            tries += [first + step for step in range(m)]
            slot = next(t % m for t in tries if t % m not in ring)
            ring[slot] = (server, j)
    return ring


def shares(functions, ring, m=512):
    """server → its exact share of the ids 100000 … 999999."""
    h = FUNCTIONS[functions][0]
    owner = {}
    for slot in range(m):
        step = 0
        while (slot + step) % m not in ring:
            step += 1
        owner[slot] = ring[(slot + step) % m][0]
    counts = {server: 0 for server, _ in ring.values()}
    for i in range(100000, 1000000):
        counts[owner[h(i) % m]] += 1
    return {server: count / 900000 for server, count in counts.items()}
