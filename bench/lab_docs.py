"""What docs/lab.md shows of a report: its three sentences and its pictures, from one run. Usage: lab_docs.py REPORT"""
import json
import pathlib
import shutil
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
MARK = "<!-- What follows is made by `./dev lab`. -->\n"
# The other two maps of `functions` say the same, in 400 KB.
LEFT_OUT = {"functions_map6", "functions_large", "classic"}


def main():
    report = pathlib.Path(sys.argv[1])
    run = json.loads((report / "run.json").read_text())
    if len(run["experiments"]) < 10 or any(each["interrupted"] for each in run["experiments"].values()):
        sys.exit("the report is not whole: docs/lab.md stays as it is")
    folder = ROOT / "docs/lab"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(report / "run.json", folder)
    text = f"\n## One run\n\n{run['version']}, {run['started']}, {run['machine']}; `{run['command']}`, seed {run['seed']}. Its figures: [run.json](lab/run.json).\n"
    for each in run["experiments"].values():
        text += f"\n### {each['title']}\n\n{each['done']} **{each['outcome']}** {each['why']}\n"
        for fault in each["faults"]:
            text += f"\nNot as it should be: {fault}\n"
        for picture in each["pictures"]:
            if picture["name"] in LEFT_OUT:
                continue
            shutil.copy(report / "pictures" / f"{picture['name']}.svg", folder)
            text += f"\n![{picture['title']}](lab/{picture['name']}.svg)\n"
    page = ROOT / "docs/lab.md"
    page.write_text(page.read_text().split(MARK)[0] + MARK + text)


main()
