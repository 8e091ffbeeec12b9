"""Print the polynomial coefficients of math.hpp: e^r - 1 = r + r^2 Q(r) on |r| <= ln(2)/2.

Q is the minimax polynomial of (e^r - 1 - r) / r^2, found by Remez exchange in 60-digit arithmetic
(mpmath), then rounded to the working precision; printed beside it is the relative error of e^r - 1
that it causes. Run: python coefficients.py
"""

from mpmath import exp, fabs, ldexp, log, lu_solve, matrix, mp, mpf, sign

mp.dps = 60
BOUND = log(2) / 2 * mpf("1.0001")


def target(r):
    return (exp(r) - 1 - r) / r**2 if fabs(r) > mpf(10) ** -12 else mpf(1) / 2 + r / 6


def weight(r):
    # turns an error of Q into one relative to e^r - 1
    return r**2 / (exp(r) - 1) if fabs(r) > mpf(10) ** -12 else r


def remez(degree, rounds=12):
    n = degree + 2
    nodes = [BOUND * mp.cos(mp.pi * (2 * i + 1) / (2 * n)) for i in range(n)]
    grid = [BOUND * mpf(i) / 1500 for i in range(-1500, 1501) if i != 0]
    for _ in range(rounds):
        system = matrix(n, n)
        rhs = matrix(n, 1)
        for i, r in enumerate(nodes):
            for j in range(degree + 1):
                system[i, j] = r**j
            system[i, degree + 1] = (-1) ** i
            rhs[i] = target(r)
        solution = lu_solve(system, rhs)
        coefficients = [solution[j] for j in range(degree + 1)]

        def error(r, c=coefficients):
            return sum(a * r**j for j, a in enumerate(c)) - target(r)

        values = [(r, error(r)) for r in grid]
        extrema, best = [], values[0]
        for r, e in values[1:]:
            if sign(e) == sign(best[1]):
                best = (r, e) if fabs(e) > fabs(best[1]) else best
            else:
                extrema.append(best)
                best = (r, e)
        extrema.append(best)
        while len(extrema) > n:  # keep the alternating run with the largest errors
            extrema.pop(0 if fabs(extrema[0][1]) < fabs(extrema[-1][1]) else -1)
        if len(extrema) < n:
            break
        nodes = [r for r, _ in extrema]
    return coefficients, max(fabs(e * weight(r)) for r, e in values)


for name, degree, bits in (("float", 4, 24), ("double", 9, 53)):
    coefficients, error = remez(degree)
    print(f"{name}: degree {degree}, relative error {mp.nstr(error * ldexp(1, bits), 3)} x 2^-{bits}")
    for j, c in enumerate(coefficients):
        print(f"  r^{j}: {float(c).hex() if bits == 53 else mp.nstr(c, 12)}")
