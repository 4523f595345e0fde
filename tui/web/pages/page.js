document.getElementById("again").addEventListener("click", () => window.location.reload());

// The keyboard belongs to the terminal as soon as there is something in it.
new MutationObserver(() => {
  if (document.body.classList.contains("-first-byte")) {
    document.querySelector(".xterm-helper-textarea")?.focus();
  }
}).observe(document.body, { attributes: true, attributeFilter: ["class"] });
