"""Pictures of the benchmarks, by gnuplot: SVG, readable without colour."""
import shutil
import statistics
import subprocess

STYLE = """set terminal svg size 900,460 font 'sans-serif,13' background '#ffffff'
set border 3 lc rgb '#444444'; set grid ytics lc rgb '#dddddd'; set tics nomirror; set key outside right top
set style fill solid 0.9 border lc rgb '#ffffff'
"""
COLOURS = ["#0b5cad", "#7fb2e5", "#8a8a8a", "#c9c9c9", "#b5651d", "#e3b98f", "#444444"]


def draw(out, name, script):
    if shutil.which("gnuplot") is None:
        print(f"(no picture of {name}: gnuplot is missing)")
        return
    subprocess.run(["gnuplot"], input=f"{STYLE}set output '{out}/{name}.svg'\n{script}", text=True, check=True)


def bars(out, name, rows, group, column, title, unit):
    """Groups of bars: medians of `column`, with the range over the rounds."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    groups = list(dict.fromkeys(row[group] for row in rows))
    ordered = sorted(names, key=lambda n: (not n.startswith("Ringmaster"), n)) if any(n.startswith("Ringmaster") for n in names) else names
    data = []
    for g in groups:
        cells = [f'"{g}"']
        for n in ordered:
            values = [row[column] for row in rows if row[group] == g and row["name"] == n]
            cells += [f"{statistics.median(values):.4f}", f"{min(values):.4f}", f"{max(values):.4f}"]
        data.append(" ".join(cells))
    heredoc = "$d << E\n" + "\n".join(data) + "\nE\n"
    plots = ", ".join(f"$d using {3 * k + 2}:{3 * k + 3}:{3 * k + 4}:xtic(1) title '{n}' lc rgb '{COLOURS[k % len(COLOURS)]}'" for k, n in enumerate(ordered))
    label = {"connections": "connections", "share": "share of the maximum rate of the best peer"}.get(group, "")
    draw(out, name, f"set title '{title}, median and range of the rounds'\nset ylabel '{unit}'\nset xlabel '{label}'\nset yrange [0:*]\nset style data histograms\n"
                    f"set style histogram errorbars gap 1 lw 1\n{heredoc}plot {plots}\n")


def lines(out, name, rows, x, columns, title, xlabel, ylabel):
    data = "\n".join(" ".join(str(row[key]) for key in (x, *columns)) for row in rows)
    plots = ", ".join(f"$d using 1:{k + 2} with linespoints lw 2 pt {5 + 2 * k} dt {k + 1} lc rgb '{COLOURS[4 * k]}' title '{column}'" for k, column in enumerate(columns))
    draw(out, name, f"set title '{title}'\nset xlabel '{xlabel}'\nset ylabel '{ylabel}'\nset yrange [0:*]\n$d << E\n{data}\nE\nplot {plots}\n")
