// The button that downloads a chapter's notebook. From disk a browser would show the file instead of
// saving it, so there the notebook comes as a script, which is allowed, and is handed over from it.
document.addEventListener("DOMContentLoaded", () => {
  const links = "a.btn-download-source-button[href$='.ipynb']";
  for (const link of document.querySelectorAll(links)) {
    link.removeAttribute("target");
    link.download = link.href.split("/").pop();
    if (location.protocol !== "file:") continue;
    link.addEventListener("click", (event) => {
      event.preventDefault();
      window.saveNotebook = (text) => {
        const save = document.createElement("a");
        save.href = URL.createObjectURL(new Blob([text], { type: "application/x-ipynb+json" }));
        save.download = link.download;
        save.click();
      };
      const script = document.createElement("script");
      script.src = link.href + ".js";
      document.head.append(script);
    });
  }
});

// A guess under a question: is it right, or in which direction is it wrong? Nothing leaves the page.
document.addEventListener("submit", event => {
  const form = event.target.closest("form.guess");
  if (!form) return;
  event.preventDefault();
  const guess = form.elements.guess.value.trim().replace(",", "."), right = form.dataset.right;
  const off = Number(guess) - Number(right), within = Number(form.dataset.within) + 1e-9;
  const verdict = guess === "" ? "Your answer first."
    : form.dataset.within === undefined ? (guess === right ? "Right." : "No. Open the output.")
    : Number.isNaN(off) ? "A number, such as 0.5."
    : Math.abs(off) <= within ? "Right, or close enough." : off > 0 ? "Too large." : "Too small.";
  form.querySelector("output").textContent = verdict;
});
