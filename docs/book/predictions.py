"""Fold what answers a **Predict.**, on the web site and in the student's edition.

A question is a paragraph that starts with `**Predict.**`. Its answer is what the code cells right
behind it print, and the text behind those. Output is folded by MyST-NB's tag `hide-output`, text by
HTML's own `<details>`: both work without a network and with a keyboard, in a browser and in
JupyterLab. The chapters' sources know nothing of this; they follow the order of docs/writing.md.
"""

QUESTION = "**Predict.**"
FOLDED = "<details>\n<summary>{title}</summary>\n\n{text}\n\n</details>"


def fold(notebook):
    """Fold the answers of a notebook, in place, and return it."""
    asked = False
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if asked:
                cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-output"]
        elif cell.cell_type == "markdown":
            cell.source, asked = fold_text(cell.source, asked)
    return notebook


def fold_text(source, asked):
    """Fold the answers in a Markdown cell. `asked`: a question stands above the cells before it.

    Return the new source, and whether it ends with a question that the next cells answer.
    """
    done, answer = [], []

    def close(leads_on):
        """Fold the paragraphs collected; the last of several leads on to what comes next."""
        last = [answer.pop()] if leads_on and len(answer) > 1 else []
        if answer:
            done.append(folded("\n\n".join(answer)))
        done.extend(last)
        answer.clear()

    for paragraph in source.split("\n\n"):
        if paragraph.startswith(QUESTION):
            close(leads_on=True)
            done.append(paragraph)
            asked = True
        elif paragraph.startswith(("#", "**")):  # a heading, or one that is run in
            close(leads_on=False)
            done.append(paragraph)
            asked = False
        else:
            (answer if asked else done).append(paragraph)
    asked = asked and any(paragraph.startswith(QUESTION) for paragraph in done)
    close(leads_on=not asked)
    return "\n\n".join(done), asked


def folded(text, title="Answer"):
    return FOLDED.format(title=title, text=text)
