// The copy button beside a key: without this script, or where a page may not copy, there is none.
if (navigator.clipboard) {
  for (const button of document.querySelectorAll("[data-copies]")) {
    const from = document.getElementById(button.dataset.copies);
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(from.textContent.trim());
      button.textContent = "Copied";
    });
  }
}
