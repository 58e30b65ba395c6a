// Keeps the run's page current while it trains: the server draws, this only fetches.
const EVERY_MS = 1000;

async function refresh(section) {
  try {
    const response = await fetch(section.dataset.address, { headers: { Accept: "text/html" } });
    if (response.ok) {
      section.innerHTML = await response.text();
      if (response.headers.get("X-Run-Ended") === "1") return;
    }
  } catch {
    // The server is away for a moment: the next look may find it.
  }
  setTimeout(refresh, EVERY_MS, section);
}

const section = document.getElementById("run-progress");
if (section && section.dataset.ended === "0") setTimeout(refresh, EVERY_MS, section);
