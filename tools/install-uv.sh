#!/bin/sh
# Prints the path of a uv that is new enough, installing one into .tools/ where there is none.
# Needs python3 or curl; changes nothing outside the checkout, except that root on a Debian without any of
# the ordinary ways gets python3-venv from apt-get.
set -u
cd -- "$(dirname -- "$0")/.." || exit 1
tools="$PWD/.tools"
wanted=$(sed -n '/^name = "uv"$/{n;s/^version = "\(.*\)"$/\1/p;}' uv.lock)
unset PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV PYTHONHOME VIRTUAL_ENV

usable() { # $1: a uv. Version 0.8 or later
    version=$("$1" --version 2>/dev/null | sed -n 's/^uv \([0-9]*\)\.\([0-9]*\).*/\1 \2/p') || return 1
    [ -n "$version" ] && [ "${version% *}" -gt 0 -o "${version#* }" -ge 8 ]
}

by_venv() {
    python3 -m venv --clear "$tools/uv" && "$tools/uv/bin/python" -m pip install "uv==$wanted"
}

by_target() { # a folder of our own: pip's refusal to touch a system's Python does not apply
    python3 -m pip install --target "$tools/uv" "uv==$wanted"
}

by_pip_wheel() { # pip itself is a wheel that runs as it is
    python3 tools/fetch_pip.py "$tools/pip.whl" && python3 "$tools/pip.whl/pip" install --target "$tools/uv" "uv==$wanted"
}

by_installer() {
    if command -v curl >/dev/null; then
        curl --proto '=https' -LsSf --connect-timeout 20 "https://astral.sh/uv/$wanted/install.sh" -o "$tools/install.sh"
    else
        wget -q -T 20 -O "$tools/install.sh" "https://astral.sh/uv/$wanted/install.sh"
    fi && UV_INSTALL_DIR="$tools/uv/bin" UV_NO_MODIFY_PATH=1 sh "$tools/install.sh"
}

by_apt() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null &&
        apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy python3-venv ca-certificates && by_venv
}

found=$(command -v uv) && usable "$found" && echo "$found" && exit
usable "$tools/uv/bin/uv" && echo "$tools/uv/bin/uv" && exit

mkdir -p "$tools" || exit 1
for way in by_venv by_target by_pip_wheel by_installer by_apt; do
    echo "Installing uv $wanted into .tools/ ($way) ..." >&2
    rm -rf "$tools/uv"
    if $way >"$tools/install-uv.log" 2>&1 && usable "$tools/uv/bin/uv"; then
        echo "$tools/uv/bin/uv"
        exit
    fi
    sed 's/^/    /' "$tools/install-uv.log" | tail -n 3 >&2
done
echo "uv could not be installed: see https://docs.astral.sh/uv/getting-started/installation/ and put it on PATH." >&2
exit 1
