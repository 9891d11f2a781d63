module pebble

go 1.24

require github.com/letsencrypt/pebble/v2 v2.8.0
