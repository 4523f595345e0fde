#!/bin/sh
# Makes a certificate of your own for nginx, and switches TLS on.
#
#   make-certificate.sh [--owner USER] [NAME…]
#
# NAME is a host name or an address that clients use; localhost, 127.0.0.1 and ::1 are always included. --owner gives the
# files to the user that nginx runs as: 101 in the official image. Clients must be told to trust tls/certificate.pem,
# for example: curl --cacert, SSL_CERT_FILE, NODE_EXTRA_CA_CERTS. It lasts 397 days, the most that browsers take.
set -eu
DAYS=397
folder=$(cd "$(dirname "$0")" && pwd)/tls

owner=
if [ "${1-}" = --owner ]; then
    owner=${2:?"--owner needs a user"}
    shift 2
fi

names=DNS:localhost,IP:127.0.0.1,IP:::1
for name in "$@"; do
    case $name in
    -* | *[!A-Za-z0-9.:*-]* | '')
        echo "make-certificate.sh: not a host name or an address: $name" >&2
        exit 64
        ;;
    *:*) names=$names,IP:$name ;;
    *[!0-9.]*) names=$names,DNS:$name ;;
    *) names=$names,IP:$name ;;
    esac
done

umask 077
staged=$(mktemp -d "$folder/.new.XXXXXX")
trap 'rm -rf "$staged"' EXIT
# Of version 3, for one server, and no authority that could sign others.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -days "$DAYS" \
    -subj "/CN=${1-localhost}" -addext "subjectAltName=$names" \
    -addext "basicConstraints=critical,CA:FALSE" -addext "keyUsage=critical,digitalSignature" \
    -addext "extendedKeyUsage=serverAuth" \
    -keyout "$staged/key.pem" -out "$staged/certificate.pem" 2>"$staged/said" || {
    cat "$staged/said" >&2
    exit 1
}
cp "$folder/server.conf.example" "$staged/server.conf"
chmod 0644 "$staged/certificate.pem" "$staged/server.conf"
chmod 0600 "$staged/key.pem"
[ -z "$owner" ] || chown "$owner" "$staged/key.pem" "$staged/certificate.pem"
mv "$staged/key.pem" "$staged/certificate.pem" "$staged/server.conf" "$folder/"
echo "$folder/certificate.pem: for $names, $DAYS days. TLS is on; reload or start nginx."
