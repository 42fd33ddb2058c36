// Browsers start no web worker in a page that was opened from the disk. There, the script of the search runs in a hidden
// frame instead, which looks the same from outside: messages go in and come out.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      const outside = new MessageChannel();
      this.port = outside.port1;
      this.port.onmessage = ({ data }) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      inside.postMessage = data => outside.port2.postMessage(data);
      inside.importScripts = (...urls) => urls.reduce((before, each) => before.then(() => this.load(each)), Promise.resolve());
      outside.port2.onmessage = ({ data }) => inside.dispatchEvent(new inside.MessageEvent("message", { data }));
      this.load(url).then(() => {
        for (const data of this.waiting.splice(0)) this.port.postMessage(data);
        this.waiting = null;
      });
    }

    load(url) {
      return new Promise((loaded, failed) => {
        const script = this.frame.contentDocument.createElement("script");
        script.src = new URL(url, location.href);
        script.onload = loaded;
        script.onerror = failed;
        this.frame.contentDocument.body.append(script);
      });
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.port.postMessage(data);
    }

    terminate() {
      this.frame.remove();
    }
  };
}
