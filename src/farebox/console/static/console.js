// The copy buttons beside keys and code: without this script, or where a page may not copy, there are none.
if (navigator.clipboard) {
  for (const button of document.querySelectorAll("[data-copies]")) button.hidden = false;
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copies]");
    if (!button) return;
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent.trim());
    button.textContent = "Copied";
  });
}

// Orders as they come: each event has how things stand, of which the page takes over what has changed. Without this
// script, a link loads the page again.
const live = document.querySelector("[data-live]");
if (live && window.EventSource) {
  const part = (name, within = document) => within.querySelector(`[data-part=${name}]`);
  const said = part("as-of"), pause = part("pause"), shown = part("orders");
  let source = null, isPaused = false, isOver = false, again = 0, waits = 5;

  const show = (html) => {
    const focused = document.activeElement;
    const fresh = document.createElement("template");
    fresh.innerHTML = html;
    const counts = part("counts", fresh.content);
    if (part("counts").innerHTML !== counts.innerHTML) part("counts").replaceWith(counts);
    const body = shown.querySelector("tbody");
    const rows = new Map([...fresh.content.querySelectorAll("tbody > tr")].map((row) => [row.id, row]));
    // What has changed or is gone makes room first. What stays is in its order then, and is not moved: a row that is
    // moved loses the focus.
    for (const old of [...body.children]) if (old.outerHTML !== rows.get(old.id)?.outerHTML) old.remove();
    let place = body.firstElementChild;
    for (const row of rows.values()) {
      if (place?.id === row.id) {
        place = place.nextElementSibling;
      } else {
        document.getElementById(row.id)?.remove();
        body.insertBefore(row, place);
      }
    }
    // Who was at a link of what has changed is at the same link of what is there now.
    if (!focused.isConnected) {
      const now = document.getElementById(focused.closest("tr")?.id) ?? shown;
      [...now.querySelectorAll("a")].find((link) => link.href === focused.href)?.focus({ preventScroll: true });
    }
  };
  const stop = () => {
    clearTimeout(again);
    if (source) source.close();
    source = null;
  };
  const follow = () => {
    stop();
    if (isPaused || isOver || document.hidden) return;
    source = new EventSource(live.dataset.live);
    const came = (event) => {
      waits = 5;
      said.textContent = `As of ${event.lastEventId} (UTC), as it comes.`;
    };
    source.addEventListener("beat", came);
    source.addEventListener("orders", (event) => { show(event.data); came(event); });
    source.addEventListener("ended", (event) => {
      isOver = true;
      stop();
      said.textContent = `${event.data}.`;
      part("reload").hidden = false;
      pause.hidden = true;
    });
    source.addEventListener("error", () => {
      said.textContent = "The connection is lost; it is tried again.";
      // A browser tries again by itself, but not where it was refused.
      if (source && source.readyState === EventSource.CLOSED) {
        again = setTimeout(follow, waits * 1000);
        waits = Math.min(60, 2 * waits);
      }
    });
  };
  pause.hidden = false;
  part("reload").hidden = true;
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? "Go on" : "Pause";
    if (isPaused) said.textContent = said.textContent.replace("as it comes", "paused");
    follow();
  });
  document.addEventListener("visibilitychange", follow);
  follow();
}
