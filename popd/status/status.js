// Keeps the page up to date, and tells the value under the pointer.  Without it the page says the
// same, as it was when it was loaded.
"use strict";

(() => {
  const STEP = 10_000; // milliseconds between two looks
  const KILO = 1000;
  const updated = document.querySelector(".updated");
  let past = null; // the history from /status.json, and when the page was made

  const digits = (value, count) => String(Number(value.toPrecision(count)));
  const units = {
    count: (value) =>
      value >= 100 || Number.isInteger(value)
        ? Math.round(value).toLocaleString("en").replaceAll(",", "\u202f")
        : value >= 0.01 ? digits(value, 3) : "<\u202f0.01",
    data: (value) => {
      const names = ["B", "kB", "MB", "GB", "TB"];
      let at = 0;
      while (value >= KILO && at < names.length - 1) {
        value /= KILO;
        at += 1;
      }
      return `${at ? digits(value, 3) : Math.round(value)}\u202f${names[at]}`;
    },
    seconds: (value) =>
      value < 1
        ? `${digits(value * KILO, value < 0.1 ? 2 : 3)}\u202fms`
        : `${value < 10 ? digits(value, 2) : Math.round(value)}\u202fs`,
    share: (value) => `${value && value < 0.1 ? digits(value * 100, 1) : Math.round(value * 100)}\u202f%`,
  };

  const isBusy = (element) => {
    const selection = document.getSelection();
    return (
      element.contains(document.activeElement) ||
      element.querySelector(".cursor") !== null ||
      (selection && !selection.isCollapsed && selection.containsNode(element, true))
    );
  };

  // Puts what has changed in the place of what there is; what somebody is at work with stays.
  const replace = (fresh) => {
    for (const old of document.querySelectorAll("[data-live]")) {
      const next = fresh.querySelector(`[data-live="${old.dataset.live}"]`);
      if (!next || isBusy(old)) continue;
      for (const details of old.querySelectorAll("details[open]")) {
        const same = next.querySelector(`#${details.id}`);
        if (same) same.open = true;
      }
      old.replaceWith(document.adoptNode(next));
    }
  };

  const ask = async (path) => {
    const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(STEP) });
    if (!answer.ok) throw new Error(answer.statusText);
    return answer;
  };

  const refresh = async () => {
    if (document.hidden) return;
    try {
      const text = await (await ask(location.pathname + location.search)).text();
      replace(new DOMParser().parseFromString(text, "text/html"));
      past = null;
      updated.textContent = `As of ${new Date().toLocaleTimeString()}; looks again every ten seconds.`;
      updated.classList.remove("bad");
    } catch {
      updated.textContent = `No answer at ${new Date().toLocaleTimeString()}; this is older.`;
      updated.classList.add("bad");
    }
  };

  // The value under the pointer.
  const tell = async (figure, part) => {
    if (!past) past = ask("/status.json").then((answer) => answer.json());
    const { history, time } = await past;
    const span = Number(figure.parentElement.dataset.span); // seconds that a plot shows
    const at = time - span * (1 - part);
    let nearest = -1;
    history.times.forEach((moment, index) => {
      if (nearest < 0 || Math.abs(moment - at) < Math.abs(history.times[nearest] - at)) nearest = index;
    });
    const known = nearest >= 0 && Math.abs(history.times[nearest] - at) <= 2 * history.step;
    for (const place of figure.querySelectorAll("[data-series]")) {
      place.dataset.latest ??= place.textContent;
      const value = known ? history.series[place.dataset.series][nearest] : null;
      place.textContent = value === null ? "\u2013" : units[figure.dataset.unit](value);
    }
  };

  const leave = (plot) => {
    plot.querySelector(".cursor")?.remove();
    for (const place of plot.parentElement.querySelectorAll("[data-latest]")) {
      place.textContent = place.dataset.latest;
      delete place.dataset.latest;
    }
  };

  document.addEventListener("pointermove", (event) => {
    const plot = event.target.closest?.(".plot");
    for (const cursor of document.querySelectorAll(".cursor")) {
      if (cursor.parentElement !== plot) leave(cursor.parentElement);
    }
    if (!plot) return;
    const box = plot.getBoundingClientRect();
    const part = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    let cursor = plot.querySelector(".cursor");
    if (!cursor) {
      cursor = document.createElement("span");
      cursor.className = "cursor";
      plot.append(cursor);
    }
    cursor.style.left = `${part * 100}%`;
    tell(plot.parentElement, part).then(() => plot.contains(cursor) || leave(plot), () => {
      past = null;
    });
  });

  document.addEventListener("visibilitychange", refresh);
  setInterval(refresh, STEP);
})();
