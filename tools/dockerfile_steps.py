"""The steps of a Dockerfile as a shell script: `python3 tools/dockerfile_steps.py Dockerfile .`

Where there is no container engine, the script runs on a bare system of the image's base, as root,
and shows whether the steps work. It knows what our Dockerfile uses: RUN, COPY, ENV, USER, WORKDIR.
"""

import shlex
import sys


def script(dockerfile, context):
    """Lines of shell that do, as root, what the Dockerfile says; COPY reads from `context`."""
    lines, user, environment = ["set -eux"], "0", "HOME=/home/student"
    text = "\n".join(line for line in dockerfile.splitlines() if not line.startswith("#"))
    for instruction in text.replace("\\\n", " ").splitlines():
        word, _, rest = instruction.strip().partition(" ")
        if word == "USER":
            user = rest
        elif word == "ENV":
            environment += " " + rest
        elif word == "WORKDIR":
            lines.append(f"mkdir -p {rest}; chown {user} {rest}; cd {rest}")
        elif word == "COPY":  # a folder by its content, a file by its name
            *sources, target = (part for part in rest.split() if not part.startswith("--"))
            for source in sources:
                origin = f"{context}/{source}"
                lines.append(
                    f"if test -d {origin}; then mkdir -p {target}; "
                    f"cp -r {origin}/. {target}; else mkdir -p $(dirname {target}); "
                    f"cp {origin} {target}; fi"
                )
            lines.append(f"chown -R {user} .")
        elif word == "RUN" and user == "0":
            lines.append(f"bash -c {shlex.quote(rest)}")
        elif word == "RUN":
            lines.append(
                f"setpriv --reuid {user} --regid {user} --clear-groups "
                f"env {environment} bash -c {shlex.quote(rest)}"
            )
        elif word not in ("", "FROM", "EXPOSE", "CMD"):
            raise ValueError(f"{word}: this script does not know that instruction")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        sys.stdout.write(script(file.read(), sys.argv[2]))
