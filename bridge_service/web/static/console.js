"use strict";

// The console, live. The server renders the page's inside anew at each look; every text in it is escaped there.

/** Replace only what has changed: a table keeps focus and scrolling, and a screen reader hears no news that is none. */
function show(main, fresh) {
  if (fresh.length !== main.children.length) return main.replaceChildren(...fresh);
  fresh.forEach((each, place) => {
    const old = main.children[place];
    if (old.isEqualNode(each)) return;
    if (each.matches(".wide")) old.replaceChildren(...each.childNodes);
    else old.replaceWith(each);
  });
}

function listen() {
  const stream = new EventSource(document.body.dataset.live);
  stream.onmessage = (event) => {
    const { [document.documentElement.lang]: html, titles } = JSON.parse(event.data);
    show(document.getElementById("console"), [...new DOMParser().parseFromString(html, "text/html").body.children]);
    document.title = titles[document.documentElement.lang];
  };
  stream.onerror = () => {
    document.querySelector(".verdict").classList.add("stale");
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 1000);
  };
}

listen();
