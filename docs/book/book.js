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
