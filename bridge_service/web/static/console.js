"use strict";

// The console, live. The server renders the page's inside anew at each look; every text in it is escaped there.

function listen() {
  const stream = new EventSource(document.body.dataset.live);
  stream.onmessage = (event) => {
    const { [document.documentElement.lang]: html, titles } = JSON.parse(event.data);
    const fresh = new DOMParser().parseFromString(html, "text/html").body;
    const table = document.querySelector(".wide");
    const [left, focused] = [table.scrollLeft, document.activeElement === table];
    document.getElementById("console").replaceChildren(...fresh.childNodes);
    document.querySelector(".wide").scrollLeft = left;
    if (focused) document.querySelector(".wide").focus();
    document.title = titles[document.documentElement.lang];
  };
  stream.onerror = () => {
    document.querySelector(".verdict").classList.add("stale");
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 1000);
  };
}

listen();
