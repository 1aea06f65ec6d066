// For the studio of a service: places to go in the masthead, and a word when the page is closed.
(() => {
  "use strict";
  async function showPlaces() {
    const answer = await fetch("/private/places", { credentials: "same-origin" });
    if (!answer.ok) return;
    const { html } = await answer.json();
    if (!html) return;
    const box = document.createElement("div");
    box.id = "places";
    box.innerHTML = html; // made by the server, every word escaped there
    document.body.prepend(box);
  }

  const CHOICE = "imagine:stop-on-leave";
  const choice = () => document.querySelector("#stop-on-leave input[type=checkbox]");
  document.addEventListener("change", (event) => {
    if (event.target === choice()) localStorage.setItem(CHOICE, String(event.target.checked));
  });
  // Gradio draws its controls late; the choice of an earlier visit is put back once.
  const watcher = new MutationObserver(() => {
    const box = choice();
    if (!box) return;
    watcher.disconnect();
    if (localStorage.getItem(CHOICE) === "true" && !box.checked) box.click();
  });
  addEventListener("pagehide", () => {
    const stop = choice()?.checked ?? localStorage.getItem(CHOICE) === "true";
    if (stop) navigator.sendBeacon("/private/leave");
  });

  function begin() {
    showPlaces();
    watcher.observe(document.body, { childList: true, subtree: true });
  }
  if (document.body) begin(); else addEventListener("DOMContentLoaded", begin);
})();
