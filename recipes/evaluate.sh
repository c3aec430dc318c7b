#!/bin/sh
# The figures of the shipped weights: forges the files that judge, evaluates, draws, makes the leaderboard.
# Started again it goes on where it was. What follows MEDIA and OUT goes to seamline evaluate, such as --limit 40.
#   sh recipes/evaluate.sh MEDIA OUT
set -eu
seamline=${SEAMLINE:-seamline} recipes=$(dirname "$0") media=$1 out=$2
shift 2

measure() { # weights, data set, protocol
	model=$1 data=$2 protocol=$3
	shift 3
	test -e "$out/$data/manifest.jsonl" || $seamline forge "$media" "$out/$data" --recipe "$recipes/forge-$data.toml"
	$seamline evaluate --model "$model" --data "$out/$data" --protocol "$protocol" --perturb grid \
		--out "$out/rows/$model.json" --plots "$out/plots/$model" "$@"
}

measure loupe-native val ddl-track1 "$@"
measure erf-batfd-plus-light clips-val ddl-track2 "$@"
$seamline leaderboard "$out"/rows/*.json --out "$out/leaderboard"
