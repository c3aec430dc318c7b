"""Files that mean harm, by the thousand: ``corpus.py`` makes whole ones, ``mutate.py`` says what is done to them."""
