const ASK_AGAIN_MS = 2000;
let told = false;
document.getElementById("again").addEventListener("click", () => window.location.reload());

// Whether it was left by a key, or what served it has gone: then opening it again shows nothing.
const tellWhy = async () => {
  try {
    await fetch("/page.js", { cache: "no-store" });
    setTimeout(tellWhy, ASK_AGAIN_MS); // it ends its tabs first, and may yet go
  } catch {
    document.getElementById("why").textContent =
      "Nothing answers here any more: look at the terminal where corral tui --web ran, and start it there again.";
    document.getElementById("again").hidden = true;
  }
};

// The keyboard belongs to the terminal as soon as there is something in it.
new MutationObserver(() => {
  if (document.body.classList.contains("-first-byte")) {
    document.querySelector(".xterm-helper-textarea")?.focus();
  }
  if (document.body.classList.contains("-closed") && !told) {
    told = true;
    tellWhy();
  }
}).observe(document.body, { attributes: true, attributeFilter: ["class"] });
