"use strict";

// The console, live. The server renders the page's inside anew at each look; every text in it is escaped there.

/** Replace only what has changed: a table keeps focus and scrolling, and a screen reader hears no news that is none. */
function show(live, fresh) {
  if (fresh.length !== live.children.length) return live.replaceChildren(...fresh);
  fresh.forEach((each, place) => {
    const old = live.children[place];
    if (old.isEqualNode(each)) return;
    if (each.matches(".wide")) old.replaceChildren(...each.childNodes);
    else old.replaceWith(each);
  });
}

function listen() {
  const stream = new EventSource(document.body.dataset.live);
  stream.onmessage = (event) => {
    const { html, title } = JSON.parse(event.data);
    show(document.getElementById("live"), [...new DOMParser().parseFromString(html, "text/html").body.children]);
    document.title = title;
    document.body.classList.remove("stale");
  };
  stream.onerror = () => {
    document.body.classList.add("stale");
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 1000);
  };
}

listen();
