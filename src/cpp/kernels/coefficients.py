"""Print the polynomial coefficients of math.hpp: v coth v = 1 + v^2 P(v^2) on |v| <= ln(2)/4.

1 + v^2 P is the minimax polynomial in v^2 of that form, by relative error, found by Remez exchange in 60-digit
arithmetic (mpmath), then rounded to the working precision; printed beside it is that error.
Run: python coefficients.py
"""

from mpmath import cos, coth, fabs, ldexp, log, lu_solve, matrix, mp, mpf, nstr, pi, sign, sqrt

mp.dps = 60
BOUND = (log(2) / 4 * mpf("1.0005")) ** 2  # of v^2


def target(square):
    return sqrt(square) * coth(sqrt(square))


def remez(degree, rounds=12):
    n = degree + 2
    nodes = [BOUND * (1 - cos(pi * (2 * i + 1) / (2 * n))) / 2 for i in range(n)]
    grid = [BOUND * mpf(i) / 3000 for i in range(1, 3001)]
    for _ in range(rounds):
        system = matrix(n, n)
        rhs = matrix(n, 1)
        for i, square in enumerate(nodes):
            for j in range(degree + 1):
                system[i, j] = square ** (j + 1) / target(square)
            system[i, degree + 1] = (-1) ** i
            rhs[i] = 1 - 1 / target(square)
        solution = lu_solve(system, rhs)
        coefficients = [solution[j] for j in range(degree + 1)]

        def error(square, c=coefficients):
            return (1 + sum(a * square ** (j + 1) for j, a in enumerate(c))) / target(square) - 1

        values = [(square, error(square)) for square in grid]
        extrema, best = [], values[0]
        for square, e in values[1:]:
            if sign(e) == sign(best[1]):
                best = (square, e) if fabs(e) > fabs(best[1]) else best
            else:
                extrema.append(best)
                best = (square, e)
        extrema.append(best)
        while len(extrema) > n:  # keep the alternating run with the largest errors
            extrema.pop(0 if fabs(extrema[0][1]) < fabs(extrema[-1][1]) else -1)
        if len(extrema) < n:
            break
        nodes = [square for square, _ in extrema]
    return coefficients, max(fabs(e) for _, e in values)


for name, degree, bits in (("float", 1, 24), ("double", 4, 53)):
    coefficients, error = remez(degree)
    print(f"{name}: {degree + 1} terms, relative error {nstr(error * ldexp(1, bits), 3)} x 2^-{bits}")
    for j, c in enumerate(coefficients):
        print(f"  v^{2 * j + 2}: {float(c).hex() if bits == 53 else nstr(c, 12)}")
