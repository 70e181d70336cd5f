#!/usr/bin/env bash
# Installs what the tests need beyond the Python environment: a Redis server, Chromium, Java, a C
# compiler, the Pulsar server, and what moves its ledgers to tiered storage. It can be run again at any time; what
# is there already is left as it is.
set -euo pipefail

version=4.0.8
cache="${HOME}/.cache/fs-notebook-tests"
repository="${HOME}/.m2/repository/org/apache/pulsar"

# Each: the artifact, the folder that it unpacks to, and its size.
packages=(
  "pulsar-server-distribution apache-pulsar-${version} 245"
  "pulsar-offloader-distribution apache-pulsar-offloaders-${version} 62"
)

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

archive_of() {
  echo "${repository}/$1/${version}/$1-${version}-bin.tar.gz"
}

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v chromium >/dev/null || missing+=(chromium)
command -v java >/dev/null || missing+=(default-jre-headless)
# tests/frameworks.py takes both.
command -v gcc >/dev/null || missing+=(gcc)
command -v readelf >/dev/null || missing+=(binutils)
# Maven only fetches; with everything at hand it is not needed.
for package in "${packages[@]}"; do
  read -r module folder _ <<<"${package}"
  if [ ! -d "${cache}/${folder}" ] && [ ! -f "$(archive_of "${module}")" ]; then
    command -v mvn >/dev/null || missing+=(maven)
    break
  fi
done

if [ "${#missing[@]}" -gt 0 ]; then
  echo "installing: ${missing[*]}"
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
    "${missing[@]}"
else
  echo "redis-server, chromium, java and gcc are there"
fi

mkdir -p "${cache}"
unpacked=""
trap 'rm -rf "${unpacked}"' EXIT
for package in "${packages[@]}"; do
  read -r module folder size <<<"${package}"
  if [ -d "${cache}/${folder}" ]; then
    echo "${folder} is there"
    continue
  fi
  archive="$(archive_of "${module}")"
  if [ ! -f "${archive}" ]; then
    echo "fetching ${folder} (${size} MB)"
    mvn -q -B dependency:get "-Dartifact=org.apache.pulsar:${module}:${version}:tar.gz:bin" \
      -Dtransitive=false
  fi
  unpacked="$(mktemp -d "${cache}/unpack.XXXXXX")"
  tar -xzf "${archive}" -C "${unpacked}"
  # One rename, so that a test that looks meanwhile sees all of it or nothing.
  mv -T "${unpacked}/${folder}" "${cache}/${folder}"
  rm -rf "${unpacked}"
  echo "unpacked ${folder}: ${cache}/${folder}"
done
