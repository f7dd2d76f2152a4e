// Every page names itself: its own ETag, in the footer.

const line = document.getElementById("tag");
const page = await fetch(location.pathname, { method: "HEAD", cache: "no-store" }).catch(() => null);
const tag = page?.headers.get("ETag");
if (line && tag) {
  line.querySelector("code").textContent = tag;
  line.hidden = false;
}
