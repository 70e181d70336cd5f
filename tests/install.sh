#!/usr/bin/env bash
# Installs what the tests need beyond the Python environment: a Redis server, Chromium, Java, and
# the Pulsar server. It can be run again at any time; what is there already is left as it is.
set -euo pipefail

version=4.0.8
cache="${HOME}/.cache/fs-notebook-tests"
artifact="org.apache.pulsar:pulsar-server-distribution:${version}:tar.gz:bin"
archive="${HOME}/.m2/repository/org/apache/pulsar/pulsar-server-distribution/${version}"
archive="${archive}/pulsar-server-distribution-${version}-bin.tar.gz"

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v chromium >/dev/null || missing+=(chromium)
command -v java >/dev/null || missing+=(default-jre-headless)
# Maven only fetches the Pulsar server; with that at hand it is not needed.
if [ ! -x "${cache}/apache-pulsar-${version}/bin/pulsar" ] && [ ! -f "${archive}" ]; then
  command -v mvn >/dev/null || missing+=(maven)
fi

if [ "${#missing[@]}" -gt 0 ]; then
  echo "installing: ${missing[*]}"
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
    "${missing[@]}"
else
  echo "redis-server, chromium and java are there"
fi

if [ -x "${cache}/apache-pulsar-${version}/bin/pulsar" ]; then
  echo "Pulsar ${version} is there: ${cache}/apache-pulsar-${version}"
else
  if [ ! -f "${archive}" ]; then
    echo "fetching Pulsar ${version} (245 MB)"
    mvn -q -B dependency:get "-Dartifact=${artifact}" -Dtransitive=false
  fi
  mkdir -p "${cache}"
  unpacked="$(mktemp -d "${cache}/unpack.XXXXXX")"
  trap 'rm -rf "${unpacked}"' EXIT
  tar -xzf "${archive}" -C "${unpacked}"
  # One rename, so that a test that looks meanwhile sees all of it or nothing.
  mv -T "${unpacked}/apache-pulsar-${version}" "${cache}/apache-pulsar-${version}"
  echo "unpacked Pulsar ${version}: ${cache}/apache-pulsar-${version}"
fi
