// The API key of this tab: kept until the tab is closed, sent in a header, never part of an address.

const NAME = "adit-key";

export function held() {
  return sessionStorage.getItem(NAME);
}

export function keep(key) {
  sessionStorage.setItem(NAME, key);
}

export function drop() {
  sessionStorage.removeItem(NAME);
}

/** The headers of a request, with the key if there is one. */
export function withKey(headers) {
  const key = held();
  return key ? { ...headers, authorization: `Bearer ${key}` } : headers;
}
