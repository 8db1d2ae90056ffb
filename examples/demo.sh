#!/bin/sh
# Index the corpus beside this script, ask it in several languages, say what to try next. Run by `make demo`.
set -eu
FIVEFOLD=${FIVEFOLD:-fivefold}
INDEX=${INDEX:-.fivefold-demo/index}
CORPUS=$(dirname "$0")/corpus

ask() { "$FIVEFOLD" search "$@" --index "$INDEX"; }

"$FIVEFOLD" info | head -n 12
echo
echo "The corpus: 60 articles of the Universal Declaration of Human Rights, four in each of 15 languages."
echo "Each article is there in two languages only, so most answers come in another language than the question."
ask "$CORPUS" --top 2 \
    --query "Am I allowed to leave my country and come back?" \
    --query "Wie viel bezahlten Urlaub und Freizeit darf ich erwarten?" \
    --query "¿Puede el Estado quitarme mi nacionalidad?" \
    --query "学校教育应该免费吗？" \
    --query "क्या मैं अपनी पसंद से शादी कर सकता हूँ?"
echo
echo "How alike are two sentences, whatever their language? (1 is the same meaning)"
"$FIVEFOLD" similarity "Everyone may leave their country." "Jeder darf sein Land verlassen." "El café está caliente."
echo
echo "Try next:"
echo "  $FIVEFOLD search $CORPUS --index $INDEX   # ask your own questions"
echo "  $FIVEFOLD search FOLDER                      # search your own .txt and .md files"
echo "  $FIVEFOLD embed $CORPUS/*.txt --task retrieval.passage --output vectors.parquet"
echo "  $FIVEFOLD embed --help"
